"""Starts the small gateway, right or wrong in one way:  wrong_gateway.py --port P --engines P,P [--wrong KIND,KIND] [flags of llmd-gateway]"""
import argparse
import asyncio
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import small_gateway  # noqa: E402


def seconds(text):
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text.rstrip("s"))


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--engines", type=lambda t: [int(p) for p in t.split(",")], required=True)
    parser.add_argument("--wrong", default="")
    parser.add_argument("--max-attempts", type=int, default=3)
    parser.add_argument("--first-byte-timeout", dest="first_byte", type=seconds, default=600.0)
    parser.add_argument("--request-timeout", dest="whole", type=seconds, default=3600.0)
    parser.add_argument("--sse-heartbeat", dest="heartbeat", type=seconds, default=0.0)
    parser.add_argument("--half-close", dest="half_close", default="gone")
    parser.add_argument("--drain-timeout", dest="drain", type=seconds, default=5.0)
    parser.add_argument("--max-body-bytes", dest="max_body", type=int, default=16 << 20)
    parser.add_argument("--picker", type=int, help="process that has to live")
    parser.add_argument("-v", type=int)
    asyncio.run(small_gateway.Gateway(parser.parse_args()).main())


if __name__ == "__main__":
    main()
