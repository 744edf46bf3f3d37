"""Two processes that talk over multiprocessing.Queue, told by lines what to do, and answering in nanoseconds.

echo N: N round trips of an int; drain N: N times 64 bytes one way; wake 1: one int to a process that sleeps.
"""

import ctypes
import multiprocessing
import signal
import sys
import time

ITEM = b"x" * 56


def serve(orders, to, back):
    # Dies with the process that started it, however that ends.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    for order, count in iter(orders.recv, None):
        if order == "echo":
            for _ in range(count):
                back.put(to.get() + 1)
        elif order == "drain":
            for number in range(count):
                item = to.get()
                assert int.from_bytes(item[:8], "little") == number and item[8:] == ITEM
            orders.send(count)
        else:
            sent = to.get()
            orders.send(time.monotonic_ns() - sent)


def echo(orders, to, back, count):
    for number in range(count):
        to.put(number)
        assert back.get() == number + 1


def drain(orders, to, back, count):
    for number in range(count):
        to.put(number.to_bytes(8, "little") + ITEM)
    assert orders.recv() == count


def main():
    to, back = multiprocessing.Queue(1024), multiprocessing.Queue(1024)
    orders, theirs = multiprocessing.Pipe()
    other = multiprocessing.Process(target=serve, args=(theirs, to, back), daemon=True)
    other.start()
    for line in sys.stdin:
        order, count = line.split()
        orders.send((order, int(count)))
        if order == "wake":
            # Long enough for it to sleep.
            time.sleep(0.002)
            to.put(time.monotonic_ns())
            took = orders.recv()
        else:
            start = time.monotonic_ns()
            {"echo": echo, "drain": drain}[order](orders, to, back, int(count))
            took = time.monotonic_ns() - start
        print(took, flush=True)
    orders.send(None)


if __name__ == "__main__":
    main()
