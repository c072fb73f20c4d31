"""A session of Python's requests: requests_client.py URL [SECONDS]; with seconds it asks for so long and counts."""

import sys
import time

import requests

url = sys.argv[1]
session = requests.Session()

if len(sys.argv) > 2:
    until, versions = time.monotonic() + float(sys.argv[2]), {}
    print("began", flush=True)
    while time.monotonic() < until:
        answer = session.get(f"{url}/hello", timeout=10)
        answer.raise_for_status()
        version = answer.headers["X-Version"]
        versions[version] = versions.get(version, 0) + 1
        session.post(f"{url}/echo", data=b"x" * 1000, timeout=10).raise_for_status()
    print(versions)
    sys.exit()

for _ in range(20):
    assert session.get(f"{url}/hello").text == "hello from one"
assert session.head(f"{url}/big").headers["Content-Length"] == "5120000"

# A generator is sent in chunks, without a length.
sent = b"".join(b"%d," % number for number in range(100_000))
assert session.post(f"{url}/echo", data=(sent[at : at + 7777] for at in range(0, len(sent), 7777))).content == sent
assert session.post(f"{url}/echo", data=sent).content == sent
assert session.post(f"{url}/echo", files={"file": ("a.txt", sent)}).content.count(sent) == 1

answer = session.get(f"{url}/redirect")
assert (answer.text, len(answer.history)) == ("visited=yes", 1), answer.text

# Pieces come when they are sent, and not all at the end.
times = []
with session.get(f"{url}/stream", stream=True) as answer:
    for line in answer.iter_lines(chunk_size=1):
        times.append(time.monotonic())
assert len(times) == 10 and times[-1] - times[0] > 0.3, times
assert len(session.get(f"{url}/big").content) == 5_120_000
assert session.get(f"{url}/hello", headers={"X-Request-Id": "mine"}).headers["X-Request-Id"] == "mine"
