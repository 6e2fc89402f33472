"""Who uses what on this machine, place by place: the picture behind the picker in Review and `ftui runs --gpus`."""

from __future__ import annotations

from msgspec import Struct

from engine import hardware
from engine.hardware import Hardware
from engine.runs import directory, processes, slots, status
from engine.runs.slots import CPU, place_name
from engine.text import size


class User(Struct, frozen=True):
    """Somebody on a card. `who` is "python of alice", or the name of a run of ours; `memory` in bytes, 0 where not told."""

    who: str
    memory: int
    ours: bool

    @property
    def words(self) -> str:
        return f"{self.who} {size(self.memory)}" if self.memory else self.who


class Spot(Struct, frozen=True, kw_only=True):
    """A place where a run can train: a card, or the processor where there is none. Names are foreign text.

    memory_free  bytes that are free now; memory_soon: and when the runs of ours that hold some are over
    users        who computes there, who holds most first; on the processor only runs of ours can be seen
    training     the runs that train there, "at once" ones included
    waiting      how many runs wait for it or for any card
    strangers    why a run does not start there although no other does: "python of alice uses 20 GB"
    """

    slot: str
    name: str
    memory_total: int
    memory_free: int
    memory_soon: int
    users: list[User]
    training: list[str]
    waiting: int
    strangers: str

    @property
    def free(self) -> bool:
        """Whether a run that comes now would start there now."""
        return not self.training and not self.waiting and not self.strangers

    @property
    def title(self) -> str:
        """ "GPU 0", "the CPU"."""
        return place_name(self.slot)

    @property
    def words(self) -> str:
        """ "40 GB of 80 GB free; python of alice 20 GB, congyu 20 GB; 1 waits"."""
        parts = [f"{size(self.memory_free)} of {size(self.memory_total)} free"]
        if self.users:
            more = f", {len(self.users) - 3} more" if len(self.users) > 3 else ""
            parts.append(", ".join(user.words for user in self.users[:3]) + more)
        elif self.strangers:
            parts.append(self.strangers)
        if self.waiting:
            parts.append(f"{self.waiting} wait{'s' if self.waiting == 1 else ''}")
        return "; ".join(parts)

    @property
    def beside(self) -> str:
        """Who a run that starts there at once would have beside it: "first", "python of alice"; empty for nobody."""
        others = [user.who for user in self.users if not user.ours] if self.strangers else []
        return " and ".join([*self.training, *others[:2]]) or ("others" if self.strangers else "")

    def short_of(self, need: int, now: bool = False) -> str:
        """Why a plan that takes `need` bytes does not fit there, when its turn comes or `now`; empty where it fits."""
        room = self.memory_free if now else self.memory_soon
        are = "are" if room == self.memory_free else "will be"
        return f"the plan takes {size(need)}, and {size(room)} {are} free on {self.title}" if need > room else ""


def look(machine: Hardware | None = None) -> list[Spot]:
    """Every place of this machine, as it is used at this moment."""
    machine = machine or hardware.read()
    line = slots.tickets()
    known = machine.device == "cuda"
    seen = hardware.users() if known else {}
    strangers = slots.strangers(machine, seen) if known else {}
    names = _workers() if any(user.ours for users in seen.values() for user in users) else {}

    def spot(slot: str, name: str, total: int, free: int, soon: int, users: list[User]) -> Spot:
        return Spot(
            slot=slot,
            name=name,
            memory_total=total,
            memory_free=free,
            memory_soon=min(total, soon),
            users=users,
            training=[ticket.name for ticket in line if ticket.slot == slot],
            waiting=sum(not ticket.slot and slot in ticket.wanted for ticket in line),
            strangers=strangers.get(slot, ""),
        )

    if not known:
        there = [User(ticket.name, 0, True) for ticket in line if ticket.slot == CPU]
        soon = machine.memory_free + machine.memory_back
        return [spot(CPU, machine.cpu, machine.memory_total, machine.memory_free, soon, there)]
    found = []
    for card in machine.gpus:
        users = [User(names.get(u.pid, u.who) if u.ours else u.who, u.memory, u.ours) for u in seen.get(card.index, [])]
        soon = card.memory_free + card.memory_back
        found.append(spot(f"gpu-{card.index}", card.name, card.memory_total, card.memory_free, soon, users))
    return found


def best(spots: list[Spot]) -> Spot:
    """The one that a run would take that waits for nobody: the first that is free, else the one with most memory free."""
    return max(spots, key=lambda spot: (spot.free, spot.memory_free))


def _workers() -> dict[int, str]:
    """The runs whose workers live, by process."""
    found = {}
    for run in directory.all_runs():
        who = processes.parse(status.read_json(run.supervisor_path).get("worker"))
        if who is not None and processes.alive(who):
            found[who.pid] = directory.title(run)
    return found
