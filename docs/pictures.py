"""Make the pictures in docs/pictures from the running app: `python docs/pictures.py [RUN]`.

Nothing is staged: the runs, the machine and the answers are those of whoever runs it. RUN is a finished run of the
identity preset (the newest run by default); its chat is asked one question. Doctor names the folders of the machine
it looks at, so its picture is the one that the snapshot tests keep.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from textual.pilot import Pilot

from engine.runs import directory
from tui.app import FtuiApp

FOLDER = Path(__file__).parent / "pictures"
SIZES = ((80, 24), (120, 40))


def screen_text(app: FtuiApp) -> str:
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line) for line in lines)


async def until(pilot: Pilot[None], app: FtuiApp, word: str, seconds: float = 120.0) -> None:
    """Wait until `word` is on screen."""
    for _ in range(int(seconds * 10)):
        if word in screen_text(app):
            await pilot.pause(1.0)  # what else is still being read
            return
        await pilot.pause(0.1)
    raise TimeoutError(f"{word!r} did not appear:\n{screen_text(app)}")


async def take(name: str, size: tuple[int, int]) -> None:
    (run,) = [directory.find(name)] if name else directory.all_runs()[:1]
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:

        def keep(screen: str) -> None:
            path = FOLDER / f"{screen}-{size[0]}x{size[1]}.svg"
            path.write_text(app.export_screenshot(title="ftui"))
            print(path.name)

        await until(pilot, app, "New run from a preset")
        await until(pilot, app, "free")
        keep("runs")
        await pilot.press("n")
        await until(pilot, app, "parameters")
        keep("model")
        await pilot.press("escape", "p", "enter")
        await until(pilot, app, "SFT with")
        keep("review")
        await pilot.press("e")
        await until(pilot, app, "learning rate")
        keep("plan")
        await pilot.press("escape")
        await until(pilot, app, "trained (bold)")
        keep("data")
        app.show_train(run)
        await until(pilot, app, "identity")
        keep("train")
        app.show_chat(run)
        await until(pilot, app, "Type a question")
        await pilot.press(*"Who are you?", "enter")
        for _ in range(600):  # both answers have ended
            if screen_text(app).count("tokens/s") == 2:
                break
            await pilot.pause(0.1)
        keep("chat")
        app.show_export(run)
        await until(pilot, app, "Merged")
        keep("export")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for size in SIZES:
        asyncio.run(take(sys.argv[1] if len(sys.argv) > 1 else "", size))
