"""What is wrong with a model is said when it is loaded: its kind, the register, the line."""

from __future__ import annotations

from pathlib import Path

import pytest

import devserver.models
from devserver.machine.board import DeviceWiring
from devserver.machine.bus import Bus, DeviceFault
from devserver.models import Access, Context, Device, Lease, ModelError, Region, Register, catalog
from devserver.models.registers import Space

#: A model that is right, line by line; the tests below change one thing in it.
RIGHT = """\
from dataclasses import dataclass
from devserver.models import Access, Device, OptionError, Region, Register

class Thermo(Device):
    '''A thermometer.'''
    kind = "thermo"
    outputs = ("irq",)
    feeds = ("air",)
    emits = ("log",)
    regions = (
        Region(
            name="io",
            size=4,
            registers=(
                Register(offset=0, name="TEMP", access=Access.RO),
                Register(offset=1, name="LIMIT", storage="limit"),
                Register(offset=2, name="WIDE", width=2, storage="wide"),
            ),
        ),
    )
    @dataclass
    class State:
        limit: int = 0
        wide: int = 0
    @dataclass(frozen=True)
    class Options:
        start: int = 20
    def read_temp(self, now_ns):
        return self.options.start
"""


@pytest.fixture(autouse=True)
def _forget_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_registered", dict(catalog._registered))


def load(folder: Path, text: str) -> type[Device]:
    path = folder / "thermo.py"
    path.write_text(text)
    (model,) = catalog.load_file(str(path))
    return model


def line_of(text: str, part: str) -> int:
    return 1 + text[: text.index(part)].count("\n")


def test_a_model_that_is_right_is_loaded(tmp_path: Path) -> None:
    assert load(tmp_path, RIGHT)().read("io", 0, 1, 0) == 20


WRONG = {
    # what is put in the place of what, what is said, and what stands on the line that is named
    "beyond": ('name="LIMIT", storage', 'name="LIMIT", width=4, storage', r"LIMIT .* outside", ""),
    "overlap": ("offset=1", "offset=0", "LIMIT lies at offset 0x0 .* TEMP", 'name="LIMIT"'),
    "overlap of lanes": ("offset=2", "offset=1", "WIDE lies at offset 0x1 .* LIMIT .line 16.",
                         'name="WIDE"'),
    "storage": ('storage="wide"', 'storage="zz"', "WIDE is stored in 'zz', which State", ""),
    "near storage": ('"limit")', '"limti")', "'limti', .* did you mean 'limit'?", ""),
    "no int": ("wide: int = 0", "wide: bytes = b''", "WIDE is stored in 'wide', .* no int", "WIDE"),
    "misspelt": ("def read_temp", "def read_tmep", "TEMP needs a method read_temp .*tmep", "TEMP"),
    "none served": ("def read_temp", "def read_dial(self, now_ns): ...\n    def read_temp",
                    "read_dial serves no register", "def read_dial"),
    "arguments": ("def read_temp(self, now_ns)", "def read_temp(self)",
                  "read_temp has to take .self, now_ns.", "def read_temp"),
    "width": ("width=2", "width=3", "WIDE is 3 bytes wide; it can be 1, 2, 4 or 8", ""),
    "same name": ('emits = ("log",)', 'emits = ("log", "log")', "emits: 'log' is there twice",
                  "class Thermo"),
    "no tuple": ('("irq",)', '("irq")', r"outputs is 'irq'; it is a tuple .*\(\"irq\",\)",
                 "class Thermo"),
    "no dataclass": ("@dataclass\n", "\n", "State is no dataclass", "class State"),
    "no default": ("limit: int = 0", "limit: int", "State.limit has no default", "@dataclass\n"),
    "option": ("start: int = 20", "start: int = 'x'", "Options.start: expected int",
               "@dataclass(f"),
    "unsaved": ("limit: int = 0", "limit: int = 0\n        odd: set = None", "State.odd",
                "@dataclass\n"),
    "no advance": ("def read_temp", "def deadline_ns(self): ...\n    def read_temp",
                   "has deadline_ns, and no advance", "def deadline"),
    "leased": ("access=Access.RO", "leased=True, access=Access.RO",
               "TEMP is leased: it needs a method lease_temp", ""),
    "leased wide": ("width=2,", "width=2, leased=True,", "WIDE can't be leased", ""),
    "reset": ('"LIMIT",', '"LIMIT", reset=256,', "LIMIT has the reset value 0x100", ""),
    "raises": ("outputs = ", "outputs = 1 / 0 or ", "ZeroDivisionError", ""),
    "exits": ("outputs = ", "outputs = exit(3) or ", "SystemExit: 3", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_model_that_is_wrong_is_refused_with_kind_and_line(tmp_path: Path, name: str) -> None:
    before, after, said, on_line = WRONG[name]
    text = RIGHT.replace(before, after, 1)
    assert text != RIGHT
    line = line_of(text, on_line or after)
    with pytest.raises(catalog.UnknownModel, match=rf"thermo.py:{line}: .*{said}") as caught:
        load(tmp_path, text)
    if name not in ("raises", "exits"):
        assert "model 'thermo'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_in_a_sibling_is_said_of_the_sibling(tmp_path: Path) -> None:
    (tmp_path / "scale_of_thermo.py").write_text("ZERO = 20\nBELOW = 1 / 0\n")
    with pytest.raises(catalog.UnknownModel, match=r"scale_of_thermo.py:2: ZeroDivisionError"):
        load(tmp_path, f"import scale_of_thermo\n{RIGHT}")


def test_a_model_imports_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "degrees_of_thermo.py").write_text("START = 31\n")
    text = RIGHT.replace("= 20", "= START").replace("from dataclasses", _IMPORT, 1)
    assert load(tmp_path, text)().read("io", 0, 1, 0) == 31


_IMPORT = "from degrees_of_thermo import START\nfrom dataclasses"


def test_two_models_of_one_kind_in_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(catalog.UnknownModel, match=r"thermo.py:\d+: two models are of kind"):
        load(tmp_path, f"{RIGHT}\nclass Warmer(Thermo): pass\n")


def test_methods_may_be_put_into_a_class_behind_its_body(tmp_path: Path) -> None:
    text = RIGHT.replace("def read_temp", "def _temp")
    load(tmp_path, f"{text}\nThermo.read_temp = Thermo._temp\n")


# -- at the very call -------------------------------------------------------------------------

FAULTS = {
    "no output": ("self.set_line('irqq', True)", r"set_line\('irqq'\) .*did you mean 'irq'"),
    "no channel": ("self.emit('lg', b'')", r"emit\('lg'\) names none of its emits"),
    "no bytes": ("self.emit('log', 'text')", "takes bytes, not 'text'"),
    "no signal": ("self.signal(3)", r"signal\(3, 0\) is not a Signal"),
    "none": ("pass", r"register TEMP: read_temp returned None, and no int"),
    "fraction": ("return 1.5", r"register TEMP: read_temp returned 1.5, and no int"),
    "text": ("return 'x'", r"register TEMP: read_temp returned 'x', and no int"),
    "raises": ("raise KeyError('no')", r"KeyError: 'no'"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "recursion": ("return self.read_temp(now_ns)", "RecursionError"),
    "memory": ("raise MemoryError", "MemoryError"),
    "bad words": (
        "\n        class Odd(Exception):\n            def __str__(self): raise ValueError\n"
        "        raise Odd",
        "Odd: .an exception that can't be printed.",
    ),
}  # fmt: skip


class Deaf:
    def __getattr__(self, name: str) -> object:
        return lambda *_: None


def faulty(folder: Path, body: str) -> tuple[Bus, int]:
    text = RIGHT.replace("return self.options.start", body)
    load(folder, text)
    wiring = DeviceWiring(name="t1", kind="thermo", bases={"io": 0x500})
    return Bus([wiring], Deaf()), line_of(text, "def read_temp")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("size", [1, 2])
def test_what_a_model_does_wrong_is_its_own_fault_with_file_and_line(
    tmp_path: Path, name: str, size: int
) -> None:
    body, said = FAULTS[name]
    board, line = faulty(tmp_path, body)
    where = rf"thermo.py:({line}|{line + 1}|{line + 4})"
    with pytest.raises(
        DeviceFault, match=rf"device 't1' \(thermo\) failed: .*{said}.* at .*{where}"
    ):
        board.read(Space.PORT, 0x500, size, 0)


def test_a_feed_that_does_not_say_what_it_took_is_a_fault(tmp_path: Path) -> None:
    load(tmp_path, f"{RIGHT}\n    def feed(self, channel, data, now_ns): pass\n")
    wiring = DeviceWiring(name="t1", kind="thermo", bases={"io": 0x500})
    board = Bus([wiring], Deaf())  # type: ignore[arg-type]
    with pytest.raises(DeviceFault, match=r"feed\('air'\) returned None; .* 2 bytes it took"):
        board.feed(1, 0, b"ab", 0)


def test_a_deadline_that_is_no_number_is_a_fault(tmp_path: Path) -> None:
    more = "    def deadline_ns(self): return 2.5\n    def advance(self, now_ns): pass\n"
    load(tmp_path, f"{RIGHT}\n{more}")
    wiring = DeviceWiring(name="t1", kind="thermo", bases={"io": 0x500})
    with pytest.raises(DeviceFault, match=r"deadline_ns returned 2.5, and no int"):
        Bus([wiring], Deaf())  # type: ignore[arg-type]


def test_a_device_without_a_place_is_refused_with_what_to_say(tmp_path: Path) -> None:
    load(tmp_path, RIGHT)
    with pytest.raises(ValueError, match=r"'t1' \(thermo\) is nowhere: .* region 'io' .* port=N"):
        Bus([DeviceWiring(name="t1", kind="thermo")], Deaf())  # type: ignore[arg-type]


def test_a_class_that_is_made_in_a_program_is_looked_at_where_it_is_made() -> None:
    with pytest.raises(
        ModelError, match=r"model 'gap': register X at offset 0x9, .*\(.*\.py:\d+\)"
    ):
        type(
            "Gap",
            (Device,),
            {
                "kind": "gap",
                "regions": (Region(name="io", size=1, registers=(Register(offset=9, name="X"),)),),
            },
        )


def test_init_has_to_call_that_of_device() -> None:
    class Alone(Device):
        kind = "alone"
        regions = (
            Region(name="io", size=1, registers=(Register(offset=0, name="X", access=Access.RO),)),
        )

        def __init__(self, context: Context | None = None) -> None:
            pass

        def read_x(self, now_ns: int) -> int:
            return 0

        def lease_x(self, now_ns: int) -> Lease:
            return Lease(value=1)

    catalog.register(Alone)
    with pytest.raises(DeviceFault, match=r"__init__ does not call super\(\).__init__"):
        Bus([DeviceWiring(name="a", kind="alone", bases={"io": 1})], Deaf())  # type: ignore[arg-type]


def test_everything_that_the_page_on_models_uses_comes_from_one_place() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    for name in devserver.models.__all__:
        assert f"`{name}`" in page, name
    for name in ("Device", "Register", "OptionError", "Lease", "Term", "Hold", "StateError"):
        assert hasattr(devserver.models, name)
