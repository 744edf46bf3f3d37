//! Task list → graph → schedule → run → results: the engine of Tarragon.
