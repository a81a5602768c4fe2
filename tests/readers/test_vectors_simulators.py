"""Verilog and VHDL simulators read the text as docs/vectors.md says."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from spikequant.readers.vectors import hex_words

ROWS = np.array([[-1, 5, 0], [7, -8, -32], [31, 1, 2], [-2, -3, -4]])
BITS = 6


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_verilog_reads_the_words(tmp_path):
    if shutil.which("iverilog") is None:
        pytest.skip("no Verilog simulator: iverilog is not installed")
    (tmp_path / "x.hex").write_bytes(hex_words(ROWS, BITS))
    (tmp_path / "t.v").write_text("""module t;
  reg signed [5:0] x [0:11];
  integer k;
  initial begin
    $readmemh("x.hex", x);
    for (k = 0; k < 12; k = k + 1) $display("%0d", x[k]);
  end
endmodule
""")
    run("iverilog", "-o", "t", "t.v", cwd=tmp_path)
    assert [int(w) for w in run("vvp", "t", cwd=tmp_path).split()] == ROWS.reshape(-1).tolist()


def test_vhdl_reads_the_words(tmp_path):
    if shutil.which("ghdl") is None:
        pytest.skip("no VHDL simulator: ghdl is not installed")
    (tmp_path / "x.hex").write_bytes(hex_words(ROWS, BITS))
    (tmp_path / "t.vhd").write_text("""library ieee; use ieee.std_logic_1164.all; use ieee.numeric_std.all;
use ieee.std_logic_textio.all; use std.textio.all;
entity t is end entity;
architecture sim of t is begin
  process
    file vectors : text open read_mode is "x.hex";
    variable row, out_line : line;
    variable word : std_logic_vector(5 downto 0);
  begin
    while not endfile(vectors) loop
      readline(vectors, row);
      for k in 0 to 2 loop
        hread(row, word);
        write(out_line, to_integer(signed(word)));
        writeline(output, out_line);
      end loop;
    end loop;
    wait;
  end process;
end architecture;
""")
    for step in ("-a", "-e", "-r"):
        shown = run("ghdl", step, "--std=08", *(["t.vhd"] if step == "-a" else ["t"]), cwd=tmp_path)
    assert [int(w) for w in shown.split()] == ROWS.reshape(-1).tolist()
