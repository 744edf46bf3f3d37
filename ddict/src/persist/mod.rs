//! Dictionaries in files.
