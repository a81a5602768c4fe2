"""What a network does and what it costs, as pure functions on numbers and arrays.

Nothing here knows a network: the verbs that run one hand over spikes, weights and counts.
"""

from spikequant.measure.cost import (
    FLASH_ROLES,
    RAM_ROLES,
    EnergyPj,
    MemoryRow,
    energy_pj,
    flash_bits,
    ideal_bytes,
    memory_bits,
    memory_by_role,
    padded_flash_bytes,
    padded_row_bytes,
    ram_bits,
    state_traffic_bits,
    weight_traffic_bits,
)
from spikequant.measure.firing import (
    Divergence,
    FiringStatistics,
    dead_share,
    emd,
    first_divergence,
    matched_l1,
    network_emd,
    network_emd_weighted,
    saturated_share,
    silent_share,
)
from spikequant.measure.footprint import moved_bits, network_memory
from spikequant.measure.synops import (
    SynOps,
    SynOpsCount,
    SynOpsMean,
    fan_out_conv1d,
    fan_out_conv2d,
    fan_out_linear,
    total_synops,
)

__all__ = [
    "FLASH_ROLES",
    "RAM_ROLES",
    "Divergence",
    "EnergyPj",
    "FiringStatistics",
    "MemoryRow",
    "SynOps",
    "SynOpsCount",
    "SynOpsMean",
    "dead_share",
    "emd",
    "energy_pj",
    "fan_out_conv1d",
    "fan_out_conv2d",
    "fan_out_linear",
    "first_divergence",
    "flash_bits",
    "ideal_bytes",
    "matched_l1",
    "memory_bits",
    "memory_by_role",
    "moved_bits",
    "network_emd",
    "network_emd_weighted",
    "network_memory",
    "padded_flash_bytes",
    "padded_row_bytes",
    "ram_bits",
    "saturated_share",
    "silent_share",
    "state_traffic_bits",
    "total_synops",
    "weight_traffic_bits",
]
