"""The C export on a Cortex-M4, in QEMU: the self-test compares every score and a hash of every spike and state."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from tests.conformance.handmade import net as handmade

import spikequant as sq

STARTUP = """extern int main(void);
extern unsigned long stack_top, data_start, data_end, data_load, bss_start, bss_end;

static void leave(int failed) /* semihosting: SYS_EXIT */
{
    register unsigned long r0 __asm__("r0") = 0x18;
    register unsigned long r1 __asm__("r1") = failed ? 0x20023 : 0x20026;
    __asm__ volatile("bkpt 0xab" : : "r"(r0), "r"(r1) : "memory");
    for (;;) { }
}

void reset(void);
void reset(void)
{
    unsigned long *from = &data_load;
    for (unsigned long *to = &data_start; to < &data_end; ++to) *to = *from++;
    for (unsigned long *to = &bss_start; to < &bss_end; ++to) *to = 0;
    leave(main());
}

static void fault(void) { leave(1); }

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    &stack_top, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault };
"""
LINKER = """MEMORY { flash (rx) : ORIGIN = 0, LENGTH = 4M  ram (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
ENTRY(reset)
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) . = ALIGN(8); } > flash
  .ARM.exidx : { *(.ARM.exidx*) } > flash
  data_load = LOADADDR(.data);
  .data : { data_start = .; *(.data*) . = ALIGN(8); data_end = .; } > ram AT > flash
  .bss : { bss_start = .; *(.bss*) *(COMMON) . = ALIGN(8); bss_end = .; } > ram
  stack_top = ORIGIN(ram) + LENGTH(ram);
}
"""
COMPILE = [
    "arm-none-eabi-gcc",
    "-std=c99",
    "-mcpu=cortex-m4",
    "-mthumb",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Werror",
]
EMULATE = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting", "-kernel"]


def run_on_the_board(seeds, folder, level, *, damage=("", "")):
    """Exit code of a program that runs the self-tests of many networks: how many failed."""
    for name in ("arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    (folder / "startup.c").write_text(STARTUP)
    (folder / "link.ld").write_text(LINKER)
    includes, calls, objects = [], [], []
    for seed in seeds:
        net, codes, _ = handmade(seed)
        name = f"net{seed}"
        sq.export(net, folder / name, format="c99", inputs=codes, name=name)
        source = folder / name / f"{name}.c"
        source.write_text(source.read_text().replace(*damage) if damage[0] else source.read_text())
        includes.append(f'#include "{name}/{name}.h"\nstatic {name}_state s{seed};\n')
        calls.append(f"    failed |= {name}_self_test(&s{seed});\n")
        objects.append(f"{name}.o")
        subprocess.run([*COMPILE, level, "-c", f"{name}/{name}.c"], cwd=folder, check=True)
    (folder / "main.c").write_text(
        f"{''.join(includes)}int main(void)\n{{\n    int failed = 0;\n{''.join(calls)}    return failed;\n}}\n"
    )
    linked = ["-nostartfiles", "-T", "link.ld", "startup.c", "main.c", *objects, "-o", "test.elf"]
    subprocess.run([*COMPILE[:4], *linked], cwd=folder, check=True)
    return subprocess.run(
        [*EMULATE, "test.elf"], cwd=folder, timeout=300, check=False, stdin=subprocess.DEVNULL
    ).returncode


def test_some_networks_on_a_cortex_m4(tmp_path):
    assert run_on_the_board(range(6), tmp_path, "-O2") == 0


def test_the_board_sees_an_error(tmp_path):
    spikes = "s->n02_n1_out[i] = (uint8_t)"
    assert run_on_the_board([3], tmp_path, "-O2", damage=(spikes, f"{spikes}!")) == 1


@pytest.mark.conformance
@pytest.mark.parametrize("level", ["-Os", "-O3"])
def test_a_hundred_networks_on_a_cortex_m4(level, tmp_path):
    assert run_on_the_board(range(100), tmp_path, level) == 0
