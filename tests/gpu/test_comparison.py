"""The comparison with nvidia-smi, on a list of our own and the stand-in library; the check itself
says loudly that it needs a card."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpus.nvml import look
from tests.fakes.nvml import MIB, FakeCard, rtx_5090, rtx_pro_6000
from tests.gpu.smi import Compared, compare, number
from tests.gpus.conftest import cards, driver, library

__all__ = ["cards", "driver", "library"]
Driver = Callable[..., None]
ROOT = Path(__file__).resolve().parents[2]
# The parts of the list that are compared, as a driver of 2026 writes them.
LIST = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
  <driver_version>595.84</driver_version>
  <gpu id="00000000:01:00.0">
    <product_name>NVIDIA RTX PRO 6000 Blackwell Workstation Edition</product_name>
    <persistence_mode>Enabled</persistence_mode>
    <mig_mode><current_mig>Disabled</current_mig></mig_mode>
    <uuid>GPU-11111111-2222-3333-4444-555555555555</uuid>
    <pci>
      <pci_gpu_link_info>
        <pcie_gen>
          <max_link_gen>5</max_link_gen>
          <current_link_gen>{generation}</current_link_gen>
          <max_device_link_gen>5</max_device_link_gen>
        </pcie_gen>
        <link_widths>
          <max_link_width>16x</max_link_width>
          <current_link_width>{width}</current_link_width>
        </link_widths>
      </pci_gpu_link_info>
      <replay_counter>0</replay_counter>
    </pci>
    <fan_speed>36 %</fan_speed>
    <performance_state>P1</performance_state>
    <clocks_event_reasons>
      <clocks_event_reason_sw_power_cap>Active</clocks_event_reason_sw_power_cap>
      <clocks_event_reason_hw_slowdown>Not Active</clocks_event_reason_hw_slowdown>
    </clocks_event_reasons>
    <fb_memory_usage>
      <total>97887 MiB</total><reserved>640 MiB</reserved><used>{used} MiB</used>
    </fb_memory_usage>
    <bar1_memory_usage><total>131072 MiB</total></bar1_memory_usage>
    <utilization>
      <gpu_util>55 %</gpu_util><memory_util>30 %</memory_util>
      <encoder_util>0 %</encoder_util><decoder_util>0 %</decoder_util>
    </utilization>
    <ecc_mode><current_ecc>Enabled</current_ecc></ecc_mode>
    <temperature>
      <gpu_temp>59 C</gpu_temp>
      <gpu_temp_max_threshold>100 C</gpu_temp_max_threshold>
      <gpu_temp_slow_threshold>95 C</gpu_temp_slow_threshold>
      <memory_temp>{memory_temp}</memory_temp>
    </temperature>
    <gpu_power_readings>
      <average_power_draw>402.10 W</average_power_draw>
      <current_power_limit>600.00 W</current_power_limit>
      <default_power_limit>600.00 W</default_power_limit>
      <min_power_limit>150.00 W</min_power_limit>
      <max_power_limit>600.00 W</max_power_limit>
    </gpu_power_readings>
    <clocks><sm_clock>2580 MHz</sm_clock><mem_clock>14001 MHz</mem_clock></clocks>
    <max_clocks><sm_clock>3090 MHz</sm_clock><mem_clock>14001 MHz</mem_clock></max_clocks>
    <processes>
      <process_info><pid>{pid}</pid><type>C</type><used_memory>20 MiB</used_memory></process_info>
    </processes>
  </gpu>
</nvidia_smi_log>
"""
USUAL = {
    "generation": "5",
    "width": "16x",
    "used": "39400",
    "memory_temp": "72 C",
    "pid": str(os.getpid()),
}
PRO = rtx_pro_6000(lines=(f"process {os.getpid()} {20 * MIB}",))


def rows(driver: Driver, card: FakeCard, **changes: str) -> dict[str, Compared]:
    driver(card)
    found = compare(LIST.format(**{**USUAL, **changes}), look().samples)
    return {row.field: row for row in found[PRO.uuid]}


def test_the_same_card_is_the_same(driver: Driver) -> None:
    found = rows(driver, PRO)
    assert {row.field for row in found.values() if not row.is_same} == set()
    assert (found["memory_used_bytes"].ours, found["throttle"].theirs) == (
        39360 * MIB,
        "power limit",
    )
    assert not [row for row in found.values() if row.note.startswith("not in")]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"width": "8x"}, "pcie_width"),
        ({"used": "50000"}, "memory_used_bytes"),
        ({"memory_temp": "N/A"}, "memory_temperature_celsius"),
        ({"pid": "1"}, "processes"),
    ],
)
def test_what_differs_is_named(
    driver: Driver, changes: dict[str, str], field: str
) -> None:
    found = rows(driver, PRO, **changes)
    assert [row.field for row in found.values() if not row.is_same] == [field]


def test_what_neither_knows_is_the_same(driver: Driver) -> None:
    facts = {k: v for k, v in PRO.facts.items() if k != "memory_temperature"}
    card = rtx_pro_6000(facts=facts, lines=PRO.lines)
    row = rows(driver, card, memory_temp="N/A")["memory_temperature_celsius"]
    assert row.is_same and row.note == "not supported by card or driver"


def test_a_card_that_only_nvidia_smi_lists_is_named(driver: Driver) -> None:
    driver(rtx_5090())
    [[row]] = compare(LIST.format(**USUAL), look().samples).values()
    assert (row.field, row.is_same) == ("uuid", False)


@pytest.mark.parametrize(
    ("text", "value"), [("402.10 W", 402.1), ("16x", 16.0), ("36 %", 36.0), ("x", None)]
)
def test_a_figure_is_read_without_its_unit(text: str, value: float | None) -> None:
    assert number(text) == value


def test_without_a_card_the_check_says_that_it_checked_nothing(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    env["DJANGO_SETTINGS_MODULE"] = "omni.settings"
    argv = [sys.executable, "-m", "tests.gpu.check"]
    said = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
    assert said.returncode == 2 and "SKIPPED, nothing was checked" in said.stderr
