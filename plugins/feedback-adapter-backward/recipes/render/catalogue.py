"""Which model files are planes, ships, vehicles and buildings, and which families are held out.

Models of one family look alike (an Airbus 319 and 321), so whole families are held out:
four of ten families train, choose and test as `split` says, by a hash of the family's name,
so that adding a model never moves another one.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

CATEGORIES = ("plane", "ship", "vehicle", "building")
FAMILIES = {
    "a320": "A319 A320 A321",
    "b737": "733 734 735 736 738 739",
    "b707": "707 KC135",
    "a330": "A332 A333 A342 A343 A345 A346 A330-MRTT",
    "a300": "A300 A310",
    "crj": "CR2 CR7 CR9 Bombardier-Challenger CCX",
    "ejet": "E70 E90 E95",
    "erj": "ERJ145 Embraer-Legacy",
    "atr": "AT4 AT7",
    "dash": "DH3 DH4 DHT DH7",
    "bae146": "BAE146-300 Bae146-200",
    "fokker": "Fokker-70 Fokker-100",
    "md80": "MD80 MD90 717",
    "cessna-single": "c172 c177 c182 c182rg",
    "cessna-310": "c310 c310u3a",
    "beech": "beech-200 beech99 b1900d",
    "f-15": "F-15 F-15-lowpoly",
    "intruder": "KA6-D",
    "ticonderoga": "CG-57 CG57 CG47",
    "dock-ship": "LPD17 LHA1",
    "prepositioning": "MaritimePrepositioningForceShip Maritime-Pre-Positioning-Ship",
    "container-ship": "ContainerShip container_carrier",
    "ferry": "FerryBoat1 MediumFerry LargeFerry CruiseShip",
    "freighter": "SimpleFreighter Freighter",
    "trawler": "Trawler LargeTrawler",
    "sailboat": "SailBoatUnderPower SailBoatUnderSail SailBoatUnderPower11m sailboat",
    "carrier": "Carrier_A01 nimitz vinson truman",
    "ice3": "ICE3firstcar ICE3middlecar ICE3middlecar2",
    "teak-coach": "lner-teak-first-class-coach lner-teak-brake-coach",
    "a4-locomotive": "locomotive-A4 tender-A4",
}
FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names.split()}
NO_PLANES = {"Ferry", "balloon", "bluebird", "SpaceShuttle", "Polikarpov-I16", "Dragonfly"}
PARTS = re.compile(r"bomb|pylon|tank|missile|gear|prop|warning-light", re.IGNORECASE)
PLACES = {
    "ship": ("Maritime/Civilian", "Maritime/Military", "Geometry/sailboat1"),
    "vehicle": ("Transport", "Airport/Vehicle", "Airport/Pushback", "Military"),
    "building": ("Residential", "Commercial", "Agriculture", "Industrial", "Buildings"),
}


@dataclass(frozen=True)
class Entry:
    """One model: its file, what it is, its family, and where its pictures are."""

    path: Path
    name: str
    category: str
    pictures: tuple[Path, ...]

    @property
    def family(self) -> str:
        """The family's name; a model without relatives is its own family."""
        return f"{self.category}:{FAMILY_OF.get(self.name, self.name)}"

    @property
    def split(self) -> str:
        """`train` (about .64 of all families), `dev` (.12) or `test` (.24)."""
        number = int(hashlib.sha256(self.family.encode()).hexdigest()[32:40], 16) / 2**32
        return "train" if number < 0.64 else "dev" if number < 0.76 else "test"


def entries(root: Path) -> list[Entry]:
    """All models under an unpacked `usr/share/games/flightgear`, in a fixed order."""
    found = [
        entry for folder in sorted((root / "AI/Aircraft").iterdir()) if (entry := _plane(folder))
    ]
    for category, places in PLACES.items():
        for place in places:
            for path in sorted((root / "Models" / place).rglob("*.ac")):
                if not PARTS.search(path.name):
                    pictures = tuple(_pictures(path.parent, "*"))
                    found.append(Entry(path, path.stem, category, pictures))
    return found


def _plane(folder: Path) -> Entry | None:
    if folder.name in NO_PLANES or not folder.is_dir():
        return None
    files = [f for f in folder.rglob("*.ac") if not PARTS.search(f.name)]
    if not files:
        return None
    body = max(files, key=lambda f: (f.stat().st_size, f.name))
    return Entry(body, folder.name, "plane", tuple(_pictures(folder, "**/*")))


def _pictures(folder: Path, pattern: str) -> list[Path]:
    kinds = {".png", ".rgb", ".jpg"}
    return sorted(f for f in folder.glob(pattern) if f.suffix.lower() in kinds)
