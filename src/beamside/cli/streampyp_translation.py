"""What each option of nextPYP's streampyp becomes in Beamside.

Meaning of the options: nextPYP's manual, "Single-Particle Session" and its reference of parameters (version 0.7). Some facts that matter here:
``detect_rad`` is a radius in Å; ``class2d_box`` is counted in binned pixels; ``scope_dose_rate`` is per exposure, not per frame;
the gain is mirrored before it is rotated, clockwise.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from beamside.cli.options import declared_parameters, value_text
from beamside.cli.resolution import DEFAULT_PATTERNS
from beamside.config import nearest
from beamside.errors import ConfigError

DIAMETER_RANGE = (0.8, 1.2)
"""The picker takes a range of diameters; streampyp has one radius."""

DIRECT = {
    "scope_pixel": "pixel_size",
    "scope_voltage": "voltage",
    "scope_cs": "cs",
    "scope_wgh": "amplitude_contrast",
    "scope_init_dose": "pre_exposure",
    "gain_reference": "gain",
    "stream_transfer_target": "target",
    "stream_session_name": "name",
    "stream_session_group": "group",
    "movie_motioncor_patch_x": "patches_x",
    "movie_motioncor_patch_y": "patches_y",
    "data_bin": "binning",
    "ctf_min_res": "ctf_min_resolution",
    "ctf_max_res": "ctf_max_resolution",
    "ctf_min_def": "min_defocus",
    "ctf_max_def": "max_defocus",
    "ctf_dast": "max_astigmatism",
    "class2d_num": "classes",
    "class2d_min": "class_min",
    "class2d_inc": "class_increment",
    "slurm_tasks": "workers",
}
"""Options whose value stays as it is: streampyp's name to the parameter's."""

_SWITCHES = """
stream_transfer_remove stream_transfer_all stream_transfer_local stream_transfer_restart
stream_transfer_remote gain_fliph gain_flipv gain_remove_hot_pixels movie_weights movie_no_frames
movie_magcorr movie_force movie_force_integer movie_depth ctf_force ctf_use_ast ctf_use_phs ctf_use_lcl
ctf_determine_tilt ctf_determine_thickness detect_force detect_ignore_contamination class2d_enable data_invert
data_auto data_import data_retrieve slurm_verbose
"""
SWITCHES = frozenset(_SWITCHES.split())
"""Options that need no value."""

WITHOUT_COUNTERPART = {
    "scope_dose_rate": "it is the dose of a whole exposure; give the dose of one frame with --dose",
    "slurm_class2d_tasks": "2D classification runs in one of the workers",
    "slurm_class2d_memory": "2D classification plans its memory by itself",
    "slurm_class2d_memory_per_task": "2D classification plans its memory by itself",
    "slurm_queue": "the session runs on this machine",
    "slurm_gres": "the GPUs of this machine are used where there are some; see --device",
    "slurm_queue_gpu": "the session runs on this machine, and uses its GPUs where there are some; see --device",
    "slurm_class2d_gres": "2D classification uses a GPU of this machine where there is one; see --device",
    "slurm_walltime": "the session runs until it is stopped",
    "stream_session_timeout": "the session runs until it is stopped; --idle-minutes ends it when no more files come",
    "stream_transfer_age": "a file is taken when its size and date have settled and its structure is complete; see --settle-seconds",
    "stream_transfer_all": "metadata files travel along always; see --sidecars",
    "class2d_enable": "2D classification is always on; see --class-min",
    "class2d_ctf_min_res": "micrographs are held back for the whole session; see --reject-resolution",
    "detect_method": "particles are picked by their size",
    "movie_ali": "Beamside corrects motion itself",
    "ctf_method": "Beamside fits the CTF itself",
}
"""Options that mean nothing here, and why."""

_ALSO_KNOWN = """
scope_mag scope_mag_major scope_mag_minor scope_distort_ang scope_beam_tilt_x scope_beam_tilt_y
scope_image_shift_x scope_image_shift_y scope_tilt_axis data_set data_path_mdoc data_parent gain_rotation
movie_source movie_pattern movie_eer_reduce movie_eer_frames movie_first movie_last movie_group movie_iters
movie_pbc movie_boff movie_bin movie_bfactor movie_motioncor_bin movie_motioncor_bfactor_global
movie_motioncor_bfactor_local movie_motioncor_tol movie_motioncor_iter movie_motioncor_patch_overlap
movie_motioncor_frameref movie_motioncor_sumrange_min movie_motioncor_sumrange_max ctf_tile ctf_fstep
ctf_phase_shift ctf_min_rad ctf_max_rad ctf_ps_step ctf_tilt_axis ctf_tilt_axis_known ctf_known_ast
ctf_known_ast_angle ctf_handedness_mintilt ctf_handedness_maxtilt detect_files detect_ref detect_dist
detect_thre detect_offset detect_rand class2d_fraction class2d_rlref class2d_rhini class2d_rhref
class2d_iters_init class2d_iters_seed class2d_iters_refine class2d_max_ab_initio class2d_max_seeded
class2d_max_refinement slurm_memory_per_task slurm_verbose_level slurm_zombie slurm_bundle_size slurm_max_cpus
slurm_max_memory slurm_account slurm_daemon_tasks slurm_daemon_memory
slurm_daemon_memory_per_task slurm_daemon_gres slurm_daemon_account slurm_daemon_walltime slurm_daemon_queue
slurm_class2d_account slurm_class2d_walltime slurm_class2d_queue slurm_merge_tasks
slurm_merge_memory slurm_merge_walltime slurm_profile stream_file stream_num_tilts stream_tilt_angles
stream_tilt_order stream_process_format
"""
ALSO_KNOWN = frozenset(_ALSO_KNOWN.split())
"""Options of streampyp's sessions that are neither translated nor worth a reason."""

_COMBINED = """
data_path data_mode stream_scope_profile stream_camera_profile stream_transfer_remove
stream_transfer_operation stream_transfer_fileset stream_compress movie_weights detect_rad class2d_box
class2d_bin class2d_rad slurm_memory gain_rotation gain_fliph gain_flipv
"""
COMBINED = frozenset(_COMBINED.split())
"""Options that `translate` takes care of one by one."""

KNOWN = frozenset(DIRECT) | SWITCHES | frozenset(WITHOUT_COUNTERPART) | ALSO_KNOWN | COMBINED

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass
class Translation:
    """What a streampyp command line becomes: arguments of ``beamside session start`` and a line for people for each option."""

    arguments: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def became(self, option: str, flag: str, value: str | None = None, note: str = "") -> None:
        """Add `flag` and its value, for `option` as it was typed."""
        added = [flag] if value is None else [flag, value]
        self.arguments += added
        self.lines.append(f"{option} -> {shlex.join(added)}{f' ({note})' if note else ''}")

    def without(self, option: str, reason: str) -> None:
        """Say that `option` has no counterpart."""
        self.lines.append(f"{option} has no counterpart{f': {reason}' if reason else ''}")


def translate(options: Mapping[str, str | None]) -> Translation:
    """Return the arguments of ``beamside session start`` that say the same as streampyp's `options`.

    Beamside's own options may be mixed in, and are passed on.

    Raises
    ------
    ConfigError
        for options that nobody knows (with the nearest name), and for values that cannot be translated
    """
    translation = Translation()
    own = own_flags()
    for name, value in options.items():
        option = _typed(name, value)
        flag = "--" + name.replace("_", "-")
        if name in KNOWN:
            _translate_one(translation, name, value, options)
        elif name.startswith("tomo_"):
            raise ConfigError(f"{option}: tilt series cannot be processed; streampyp sessions of single particles can")
        elif flag in own:
            if value is None and not own[flag]:
                raise ConfigError(f"{option} needs a value")
            translation.became(option, flag, value)
        else:
            near = nearest(name, [*KNOWN, *(known.removeprefix("--") for known in own)])
            raise ConfigError(
                f"unknown option {option}{f'; did you mean -{near}?' if near else ': see streampyp --help'}"
            )
    return translation


def _translate_one(translation: Translation, name: str, value: str | None, options: Mapping[str, str | None]) -> None:
    option = _typed(name, value)
    if name in SWITCHES and not _is_on(value):
        off = {"movie_weights": "--no-dose-weighting"}.get(name)
        if off:
            translation.became(option, off)
        else:
            translation.lines.append(f"{option} -> nothing (it is off anyway)")
    elif name in _SPECIAL:
        _SPECIAL[name](translation, option, value or "", options)
    elif name in DIRECT:
        if value is None or value == "":
            raise ConfigError(f"-{name} needs a value")
        translation.became(option, declared_parameters()[DIRECT[name]].info.flag, value)
    else:
        translation.without(option, WITHOUT_COUNTERPART.get(name, ""))


def _typed(name: str, value: str | None) -> str:
    return f"-{name}" if value is None else f"-{name} {shlex.quote(value)}"


def _is_on(value: str | None) -> bool:
    return value is None or value.lower() not in ("false", "no", "0")


def own_flags() -> dict[str, bool]:
    """Return the options of ``beamside session start``, with True for those that take no value."""
    from beamside.cli.session import start

    return {
        flag: bool(getattr(parameter, "is_flag", False))
        for parameter in start.params
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }


def _number(name: str, value: str) -> float:
    if not NUMBER.fullmatch(value):
        raise ConfigError(f"-{name} {value or '(nothing)'}: must be a number")
    return float(value)


Options = Mapping[str, str | None]


def _data_path(translation: Translation, option: str, value: str, options: Options) -> None:
    if not value:
        raise ConfigError("-data_path needs a value: the path of the movies, with wildcards")
    if Path(value).is_dir():
        patterns = [f"{value.rstrip('/')}/**/{pattern}" for pattern in DEFAULT_PATTERNS["movie"]]
        translation.arguments += [word for pattern in patterns for word in ("--data", pattern)]
        translation.lines.append(f"{option} -> {' '.join(f'--data {shlex.quote(pattern)}' for pattern in patterns)}")
    else:
        translation.became(option, "--data", value)


def _data_mode(translation: Translation, option: str, value: str, options: Options) -> None:
    if value.lower() != "spr":
        raise ConfigError(f"{option}: only single-particle sessions (-data_mode spr) can be processed")
    mode = "micrographs" if "movie_no_frames" in options and _is_on(options["movie_no_frames"]) else "movies"
    translation.became(option, "--workflow", mode)


def _no_frames(translation: Translation, option: str, value: str, options: Options) -> None:
    if "data_mode" in options:
        translation.lines.append(f"{option} -> --workflow micrographs (with -data_mode)")
    else:
        translation.became(option, "--workflow", "micrographs")


def _profile(translation: Translation, option: str, value: str, options: Options) -> None:
    scope, camera = options.get("stream_scope_profile"), options.get("stream_camera_profile")
    if not scope or scope == "None":
        raise ConfigError(f"{option} needs -stream_scope_profile: cameras belong to microscopes")
    if option.startswith("-stream_camera_profile"):
        translation.lines.append(f"{option} -> --profile {scope}.{camera} (with -stream_scope_profile)")
    else:
        translation.became(option, "--profile", scope if not camera or camera == "None" else f"{scope}.{camera}")


def _remove(translation: Translation, option: str, value: str, options: Options) -> None:
    translation.became(
        option, "--remove-source", note="each file only after its copy was verified and its number of frames confirmed"
    )


def _operation(translation: Translation, option: str, value: str, options: Options) -> None:
    if value == "move":
        translation.became(
            option,
            "--remove-source",
            note="each file only after its copy was verified and its number of frames confirmed",
        )
    elif value in ("copy", "link"):
        note = "files are always copied and verified" if value == "link" else "what Beamside does"
        translation.became(option, "--no-remove-source", note=note)
    else:
        raise ConfigError(f"{option}: must be one of move, copy, link")


def _fileset(translation: Translation, option: str, value: str, options: Options) -> None:
    suffixes = [suffix.strip() for suffix in value.split(",") if suffix.strip()]
    for suffix in suffixes:
        translation.arguments += ["--sidecars", suffix]
    translation.lines.append(f"{option} -> {' '.join(f'--sidecars {suffix}' for suffix in suffixes) or 'nothing'}")


def _compress(translation: Translation, option: str, value: str, options: Options) -> None:
    if value not in ("none", "tif", "tbz"):
        raise ConfigError(f"{option}: must be one of none, tif, tbz")
    if value == "none":
        translation.became(option, "--no-compress")
    else:
        translation.became(option, "--compress", note="lossless LZW TIFF, verified pixel by pixel")


def _weights(translation: Translation, option: str, value: str, options: Options) -> None:
    translation.became(option, "--dose-weighting")


def _radius(translation: Translation, option: str, value: str, options: Options) -> None:
    diameter = 2 * _number("detect_rad", value)
    low, high = (value_text(factor * diameter) for factor in DIAMETER_RANGE)
    note = f"a radius in Å; sizes within 20 % of its diameter of {value_text(diameter)} Å are picked"
    translation.became(option, "--particle-diameter", f"{low}:{high}", note)


def _class_mask(translation: Translation, option: str, value: str, options: Options) -> None:
    translation.became(option, "--class-mask", value_text(2 * _number("class2d_rad", value)), "the diameter in Å")


def _class_box(translation: Translation, option: str, value: str, options: Options) -> None:
    box, binning = _number("class2d_box", value), _number("class2d_bin", options.get("class2d_bin") or "4")
    note = "streampyp bins by 4 unless told otherwise" if "class2d_bin" not in options else "with -class2d_bin"
    flags = ["--class-box", value, "--box-size", value_text(box * binning)]
    translation.arguments += flags
    translation.lines.append(f"{option} -> {shlex.join(flags)} (pixels after and before binning; {note})")


def _class_bin(translation: Translation, option: str, value: str, options: Options) -> None:
    box = options.get("class2d_box")
    if box:
        translation.lines.append(f"{option} -> part of --box-size (with -class2d_box)")
    else:
        size = value_text(96 * _number("class2d_bin", value))
        flags = ["--class-box", "96", "--box-size", size]
        translation.arguments += flags
        translation.lines.append(f"{option} -> {shlex.join(flags)} (streampyp's box of 96 binned pixels)")


def _memory(translation: Translation, option: str, value: str, options: Options) -> None:
    tasks = max(_number("slurm_tasks", options.get("slurm_tasks") or "1"), 1)
    memory = value_text(_number("slurm_memory", value) / tasks)
    translation.became(option, "--memory", memory, "GB for each of the workers of -slurm_tasks")


def _gain_orientation(translation: Translation, option: str, value: str, options: Options) -> None:
    """streampyp mirrors, then rotates clockwise; Beamside rotates, then mirrors: a quarter turn swaps the two directions."""
    first = next(name for name in options if name in ("gain_rotation", "gain_fliph", "gain_flipv"))
    turns, flip = gain_orientation(
        int(_number("gain_rotation", options.get("gain_rotation") or "0")),
        "gain_fliph" in options and _is_on(options["gain_fliph"]),
        "gain_flipv" in options and _is_on(options["gain_flipv"]),
    )
    flags = ["--gain-rotate", str(90 * turns), "--gain-flip", flip]
    if option.startswith(f"-{first}"):
        translation.arguments += flags
    translation.lines.append(f"{option} -> {shlex.join(flags)} (rotation, then flip)")


def gain_orientation(rotation: int, flip_horizontal: bool, flip_vertical: bool) -> tuple[int, str]:
    """Return (clockwise quarter turns, flip after them) for streampyp's flips followed by its clockwise rotation.

    `rotation` counts quarter turns, or degrees from 90 on.
    """
    turns = (rotation // 90 if abs(rotation) >= 90 else rotation) % 4
    if flip_horizontal and flip_vertical:
        return (turns + 2) % 4, "none"
    if not flip_horizontal and not flip_vertical:
        return turns, "none"
    return turns, "left-right" if flip_horizontal != bool(turns % 2) else "up-down"


_SPECIAL: dict[str, Callable[[Translation, str, str, Options], None]] = {
    "data_path": _data_path,
    "data_mode": _data_mode,
    "movie_no_frames": _no_frames,
    "stream_scope_profile": _profile,
    "stream_camera_profile": _profile,
    "stream_transfer_remove": _remove,
    "stream_transfer_operation": _operation,
    "stream_transfer_fileset": _fileset,
    "stream_compress": _compress,
    "movie_weights": _weights,
    "detect_rad": _radius,
    "class2d_rad": _class_mask,
    "class2d_box": _class_box,
    "class2d_bin": _class_bin,
    "slurm_memory": _memory,
    "gain_rotation": _gain_orientation,
    "gain_fliph": _gain_orientation,
    "gain_flipv": _gain_orientation,
}
