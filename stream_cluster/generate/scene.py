"""Who walks past which camera and when: the part of an event that is not its descriptors."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_cluster.generate.hashing import hashed, hashed_share
from stream_cluster.generate.options import GenerateOptions

Ints = npt.NDArray[np.int64]

BLOCK = 256
"""Events simulated at a time. Part of the data's definition: every block has random numbers of its own."""

# Person number = crowd · u ** 2 for a uniform u: how often rank r is seen falls like r ** -0.5.
_CROWD_TAIL = 2.0

_CITIES = ("Riga", "Porto", "Lyon", "Graz")
_AREAS = ("North", "South", "East", "West")
_STREETS = ("Station Road", "Market Street", "Mill Lane", "Harbour Way", "Park Avenue")


@dataclass(frozen=True, slots=True)
class Sightings:
    """One block of appearances, as parallel arrays and lists of BLOCK entries."""

    person: Ints
    camera: Ints
    track: Ints
    """Number of the track at its camera, from 0."""
    time_us: Ints
    quality: npt.NDArray[np.float64]
    """In [0.3, 1]; better pictures have descriptors nearer to the person's own."""
    chance: npt.NDArray[np.uint8]
    """Shape (BLOCK, 4): spare random bytes for the metadata."""
    event_ids: list[str]
    attribute_ids: list[list[str]]
    """Per event, one id per descriptor type."""


class Scene:
    """The cameras over time. Holds one track per camera, nothing per person or event."""

    def __init__(self, options: GenerateOptions) -> None:
        self._options = options
        self._time_us = options.start_time_us
        self._person = np.zeros(options.cameras, np.int64)
        self._track = np.full(options.cameras, -1, np.int64)

    def next_block(self, random: np.random.Generator) -> Sightings:
        """Advance the simulated time by BLOCK appearances."""
        options = self._options
        gaps = random.exponential(1e6 / options.events_per_second, BLOCK).astype(np.int64)
        times_us = self._time_us + np.cumsum(gaps) - gaps[0]
        self._time_us = int(times_us[-1] + gaps[0])
        camera = random.integers(0, options.cameras, BLOCK)
        starts = random.random(BLOCK) < 1.0 / options.track_length
        newcomer = (options.crowd * random.random(BLOCK) ** _CROWD_TAIL).astype(np.int64)
        person, track = self._follow(camera, starts, newcomer)
        quality = 0.3 + 0.7 * random.beta(4.0, 2.2, BLOCK)
        chance = random.integers(0, 256, (BLOCK, 4), dtype=np.uint8)
        types = len(options.descriptor_types)
        ids = _random_uuids(random, BLOCK * (1 + types))
        attribute_ids = [ids[start : start + types] for start in range(BLOCK, len(ids), types)]
        return Sightings(person, camera, track, times_us, quality, chance, ids[:BLOCK], attribute_ids)

    def _follow(self, camera: Ints, starts: npt.NDArray[np.bool_], newcomer: Ints) -> tuple[Ints, Ints]:
        """Person and track of each appearance: a camera keeps its person until a new track starts there."""
        person = np.empty(BLOCK, np.int64)
        track = np.empty(BLOCK, np.int64)
        for i, where in enumerate(camera.tolist()):
            if starts[i] or self._track[where] < 0:
                self._person[where] = newcomer[i]
                self._track[where] += 1
            person[i] = self._person[where]
            track[i] = self._track[where]
        return person, track


class Metadata:
    """The descriptive fields of events. The same person and camera always look the same."""

    def __init__(self, options: GenerateOptions) -> None:
        self._options = options
        self._handlers = [_name_uuid(options.seed, f"handler {account}") for account in options.accounts]
        self._places: dict[int, dict[str, Any]] = {}

    def of_block(self, seen: Sightings) -> list[dict[str, Any]]:
        """For each appearance of the block, the fields of WIRE's object message beside the required ones."""
        seed = self._options.seed
        looks = hashed(seed, "looks", seen.person)
        gender = (looks & np.uint64(1)).tolist()
        group = ((looks >> np.uint64(1)) % np.uint64(4)).tolist()
        age = (6 + 70 * hashed_share(seed, "age", seen.person)).astype(np.int64) + seen.chance[:, 0] % 5
        role = hashed_share(seed, "role", seen.person).tolist()
        return [
            {
                "gender": gender[i],
                "age": years,
                "ethnic_group": group[i] + 1,
                # Six faces in ten are neutral (5).
                "emotion": chance[1] % 7 + 1 if chance[1] > 150 else 5,
                "mask": 2 if chance[2] < 10 else 1,
                "liveness": 0 if chance[3] < 5 else 1,
                "tags": _tags(role[i]),
                "external_id": f"badge-{seen.person[i]:07d}" if role[i] < 0.08 else None,
                **self._place(int(seen.camera[i])),
            }
            for i, (years, chance) in enumerate(zip(age.tolist(), seen.chance.tolist(), strict=True))
        ]

    def _place(self, camera: int) -> dict[str, Any]:
        place = self._places.get(camera)
        if place is None:
            place = self._new_place(camera)
            self._places[camera] = place
        return place

    def _new_place(self, camera: int) -> dict[str, Any]:
        seed = self._options.seed
        spot = int(hashed(seed, "place", np.array([camera]))[0])
        return {
            "handler_id": self._handlers[camera % len(self._handlers)],
            "stream_id": _name_uuid(seed, f"stream {camera}"),
            "user_data": f"gate {camera + 1}",
            "meta": {"gate": camera + 1},
            "location": {
                "city": _CITIES[spot % len(_CITIES)],
                "area": _AREAS[spot // 8 % len(_AREAS)],
                "district": f"District {spot // 64 % 9 + 1}",
                "street": _STREETS[spot // 1024 % len(_STREETS)],
                "house_number": str(spot // 8192 % 120 + 1),
                "geo_position": {
                    "longitude": round(-8.0 + spot // 2**20 % 3200 / 100, 6),
                    "latitude": round(41.0 + spot // 2**36 % 1600 / 100, 6),
                },
            },
        }


def _tags(role: float) -> list[str]:
    """`vip` for three people in a hundred, `staff` for five."""
    if role < 0.03:
        return ["vip"]
    return ["staff"] if role < 0.08 else []


def _name_uuid(seed: int, name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"stream-cluster {seed} {name}"))


def _random_uuids(random: np.random.Generator, count: int) -> list[str]:
    """Random UUIDs (RFC 9562, version 4) in their usual spelling."""
    octets = random.integers(0, 256, (count, 16), dtype=np.uint8)
    octets[:, 6] = octets[:, 6] & 0x0F | 0x40
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    text = octets.tobytes().hex()
    rows = (text[start : start + 32] for start in range(0, len(text), 32))
    return [f"{row[:8]}-{row[8:12]}-{row[12:16]}-{row[16:20]}-{row[20:]}" for row in rows]
