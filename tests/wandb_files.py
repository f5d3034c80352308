"""What Weights & Biases writes where it has no server, read back record by record."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def wandb_records(path: Path) -> Iterator[Any]:
    """Reads an offline run's file: a header, then records cut to fit blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    data, block, header = path.read_bytes(), 32768, 7
    at, parts = header, b""
    while at < len(data):
        left = block - at % block
        if left < header:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + header])
        parts += data[at + header : at + header + length]
        at += header + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def wandb_history(path: Path) -> list[dict[str, Any]]:
    """Gives what was logged, a mapping for each call."""
    records = (r.history for r in wandb_records(path) if r.WhichOneof("record_type") == "history")
    return [
        {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in history.item}
        for history in records
    ]


def wandb_config(path: Path) -> dict[str, Any]:
    """Gives the run's configuration."""
    config: dict[str, Any] = {}
    for record in wandb_records(path):
        kind = record.WhichOneof("record_type")
        if kind in ("run", "config"):
            updates = record.run.config.update if kind == "run" else record.config.update
            for item in updates:
                assert item.key, "a nested change is not read"
                config[item.key] = json.loads(item.value_json)
    return config


def wandb_summary(path: Path) -> dict[str, Any]:
    """Gives the last value of each metric, and what else stands in the summary."""
    updates = (
        item
        for record in wandb_records(path)
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    )
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}
