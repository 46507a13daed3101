"""Where a forward's time goes, of what trace.c wrote: python3 report.py FILE FIRST_KERNEL [FORWARDS]

FIRST_KERNEL begins a forward (a part of its name). Of the FORWARDS (100) last ones with as many kernels as the very last: for each
kernel the median of how long after the end of the one before it it ended (these sum up to the forward), and of its own time.
"""
import statistics
import sys

path, first = sys.argv[1:3]
count = int(sys.argv[3]) if len(sys.argv) > 3 else 100
rows = sorted((int(a), int(b), int(blocks), name.strip()) for a, b, blocks, name in (line.split(" ", 3) for line in open(path)))
forwards = []
for row in rows:
    if first in row[3]:
        forwards.append([])
    if forwards:
        forwards[-1].append(row)
shape = [row[2:] for row in forwards[-1]]
alike = [forward for forward in forwards if [row[2:] for row in forward] == shape][-count:]
total, by_name = 0.0, {}
for i, (blocks, name) in enumerate(shape):
    if i == 0:
        after = statistics.median(forward[0][1] - forward[0][0] for forward in alike)
    else:
        after = statistics.median(forward[i][1] - forward[i - 1][1] for forward in alike)
    own = statistics.median(forward[i][1] - forward[i][0] for forward in alike)
    overlap = statistics.median(forward[i - 1][1] - forward[i][0] for forward in alike) if i else 0
    total += after
    sums = by_name.setdefault((name, blocks), [0, 0.0, 0.0])
    sums[0] += 1
    sums[1] += after
    sums[2] += own
    if i < 20:
        print(f"{i:3} {after / 1e3:8.2f} us after the one before, {own / 1e3:8.2f} own, begins {overlap / 1e3:6.2f} before its end  {name} {blocks}")
print(f"{len(alike)} forwards, {len(shape)} kernels, {total / 1e3:.1f} us; whole {statistics.median(f[-1][1] - f[0][0] for f in alike) / 1e3:.1f} us")
for (name, blocks), (times, after, own) in sorted(by_name.items(), key=lambda item: -item[1][1]):
    print(f"{after / 1e3:9.1f} us  {times:3} x {after / times / 1e3:6.2f} (own {own / times / 1e3:6.2f})  {name} {blocks}")
