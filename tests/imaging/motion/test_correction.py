"""Motion correction of movies whose motion is known."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from beamside.errors import ConfigError, GainError, InputError
from beamside.imaging.fourier import crop_image, shift_phases
from beamside.imaging.gain.detector import DetectorCorrection
from beamside.imaging.motion.correction import (
    MotionResult,
    MotionSettings,
    correct_movie,
    model_shifts,
    polynomial_shifts,
)
from beamside.imaging.motion.frames import Frames
from beamside.imaging.motion.sums import SumKinds, sum_frames
from beamside.imaging.motion.whole_frame import align_frames, correlation_peak
from beamside.simulate.movie import Movie, MovieSettings, simulate_movie
from beamside.simulate.score import motion_error


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def texture(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """A random image with more power at low frequencies, as micrographs have."""
    noise = torch.fft.rfft2(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))
    fy, fx = torch.fft.fftfreq(shape[0])[:, None], torch.fft.rfftfreq(shape[1])
    return torch.fft.irfft2(noise / (0.02 + torch.hypot(fy, fx)), s=shape) * 0.05


def moving(image: torch.Tensor, shifts: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
    """Frames that line up when `shifts` are applied to them."""
    shape = (image.shape[0], image.shape[1])
    frames = torch.fft.irfft2(torch.fft.rfft2(image) * shift_phases(-shifts.float(), shape), s=shape)
    return frames + noise * torch.randn(frames.shape, generator=torch.Generator().manual_seed(9))


def ours(result: MotionResult, movie: Movie, *, polynomial: bool = False) -> float:
    model = polynomial_shifts if polynomial else model_shifts
    device = result.global_shifts.device
    return motion_error(movie.truth, lambda points: model(result, torch.from_numpy(points).to(device)).cpu().numpy())


def correct(movie: Movie, **changes: object) -> MotionResult:
    truth = movie.truth.settings
    settings = MotionSettings(truth.pixel_size, truth.voltage, truth.dose_per_frame, **changes)
    return correct_movie(movie.counts, movie.gain.gain, None, settings)


class TestGlobalShifts:
    def test_whole_and_fractional_translations_are_recovered(self) -> None:
        shifts = torch.tensor([[0, 0], [3, -5], [4.25, -6.5], [5.1, -7.7], [-2.4, 1.3]], dtype=torch.float64)
        found = align_frames(moving(texture((256, 320)), shifts), 1.5, 150.0, 6.0)
        assert torch.allclose(found, shifts, atol=0.05)

    def test_the_same_is_found_in_frames_that_are_mostly_noise(self) -> None:
        steps = np.random.default_rng(4).normal(0, 0.7, (20, 2))
        shifts = torch.from_numpy(np.cumsum(steps, axis=0) - steps[0])
        found = align_frames(moving(texture((256, 256)), shifts, noise=2.0), 1.5, 150.0, 6.0)
        left = found - shifts
        assert (left - left.mean(dim=0)).square().mean().sqrt() < 0.25

    def test_noise_alone_does_not_move(self) -> None:
        noise = torch.randn(8, 256, 256, generator=torch.Generator().manual_seed(2))
        assert not align_frames(noise, 1.5, 150.0, 6.0).any()

    def test_a_frame_without_signal_lies_between_its_neighbours(self) -> None:
        shifts = torch.tensor([[0, 0], [2, 1], [4, 2], [6, 3], [8, 4]], dtype=torch.float64)
        frames = moving(texture((256, 256)), shifts)
        frames[2] = torch.randn(256, 256, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(align_frames(frames, 1.5, 150.0, 6.0), shifts, atol=0.1)

    def test_peaks_are_found_across_the_edge_and_between_pixels(self) -> None:
        y, x = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
        wrapped = ((y + 2.3 + 16) % 32 - 16) ** 2 + ((x - 4.6 + 24) % 48 - 24) ** 2
        position, height = correlation_peak(torch.exp(-wrapped / 50), 10)
        assert position.tolist() == pytest.approx([-2.3, 4.6], abs=0.03)
        assert height > 3


class TestWholeMovies:
    @pytest.mark.parametrize("seed", [1, 2])
    def test_smooth_local_motion_of_another_family_is_followed(self, seed: int) -> None:
        movie = simulate_movie(
            MovieSettings(size=(768, 832), frames=20, pixel_size=1.35, dose_per_frame=1.5), seed=seed
        )
        result = correct(movie)
        assert motion_error(movie.truth) > 1.5
        assert ours(result, movie) < 0.4
        assert ours(result, movie, polynomial=True) < 0.55
        assert ours(result, movie) < 0.8 * ours(correct(movie, patches=(1, 1)), movie)

    def test_a_jump_of_the_stage_is_followed(self) -> None:
        settings = MovieSettings(size=(640, 640), frames=16, pixel_size=1.35, dose_per_frame=1.5, jump=7)
        movie = simulate_movie(settings, seed=3)
        assert motion_error(movie.truth) > 5
        assert ours(correct(movie), movie) < 0.5

    def test_empty_ice_is_aligned_and_gives_finite_numbers(self) -> None:
        settings = MovieSettings(
            size=(640, 640), frames=16, pixel_size=1.35, dose_per_frame=1.5, particle_spacing=0, contamination=0
        )
        movie = simulate_movie(settings, seed=4)
        result = correct(movie)
        assert ours(result, movie) < 0.75 * motion_error(movie.truth)

    def test_hot_and_dead_pixels_of_the_camera_are_found(self) -> None:
        movie = simulate_movie(MovieSettings(size=(512, 512), frames=20, pixel_size=1.35, dose_per_frame=1.5), seed=5)
        found = set(map(tuple, correct(movie).hot_pixels.tolist()))
        assert found == set(map(tuple, np.concatenate([movie.gain.hot, movie.gain.dead]).tolist()))


class TestSums:
    SHIFTS = torch.tensor([[0, 0], [2.5, -3.25], [4.0, -5.5], [5.75, -6.0]], dtype=torch.float64)

    def frames(self, mean: float = 20.0) -> np.ndarray:
        return (moving(texture((256, 288)), self.SHIFTS) + mean).numpy()

    def test_the_average_is_the_sum_of_the_aligned_frames(self) -> None:
        result = correct_movie(self.frames(), None, None, MotionSettings(1.5, patches=(1, 1), plain_sum=True))
        assert result.average is not None
        wanted = 4 * (texture((256, 288)) + 20)
        inside = (slice(24, -24), slice(24, -24))
        difference = (result.average - wanted)[inside]
        assert float(result.average.mean()) == pytest.approx(80, rel=1e-3)
        assert float(difference.std() / wanted[inside].std()) < 0.06

    def test_the_weighted_sum_keeps_the_power_of_noise_in_one_frame(self) -> None:
        noise = torch.randn(12, 256, 256, generator=torch.Generator().manual_seed(5)) + 10
        result = correct_movie(noise.numpy(), None, None, MotionSettings(1.5, dose_per_frame=2.0, plain_sum=True))
        assert result.dose_weighted is not None
        assert result.average is not None
        assert float(result.dose_weighted.std()) == pytest.approx(1.0, abs=0.03)
        assert float(result.dose_weighted.mean()) == pytest.approx(10 * 12**0.5, rel=1e-3)
        assert float(result.average.std()) == pytest.approx(12**0.5, rel=0.03)

    def test_without_motion_the_weighted_sum_is_that_of_the_formula(self) -> None:
        frames = (texture((160, 160)).expand(6, 160, 160) + 10).numpy().astype(np.float64)
        result = correct_movie(frames.astype(np.float32), None, None, MotionSettings(1.5, dose_per_frame=4.0))
        frequency = np.hypot(np.fft.fftfreq(160)[:, None], np.fft.rfftfreq(160)) / 1.5
        frequency[0, 0] = 1e-6
        critical = 0.24499 * frequency**-1.6649 + 2.8141
        weights = np.exp(-(np.arange(1, 7) * 4.0)[:, None, None] / (2 * critical))
        weighted = (weights * np.fft.rfft2(frames)).sum(axis=0) / np.sqrt((weights**2).sum(axis=0))
        assert result.dose_weighted is not None
        assert np.allclose(result.dose_weighted.numpy(), np.fft.irfft2(weighted, s=(160, 160)), atol=2e-3)

    def test_binning_keeps_the_counts(self) -> None:
        result = correct_movie(self.frames(), None, None, MotionSettings(1.5, binning=2.0, plain_sum=True))
        assert result.average is not None
        assert result.average.shape == (128, 144)
        assert result.pixel_size == 3.0
        assert float(result.average.sum()) == pytest.approx(float(self.frames().sum()), rel=1e-3)

    @pytest.mark.parametrize("binning", [2.0, 1.5, 1.37])
    def test_binning_crops_in_fourier_space(self, binning: float) -> None:
        shape = (384, 432)
        smooth = crop_image(texture(shape), (96, 108))
        spectrum = torch.zeros(shape[0], shape[1] // 2 + 1, dtype=torch.complex64)
        small = torch.fft.rfft2(smooth) * 16
        spectrum[:48, :54], spectrum[-47:, :54] = small[:48, :54], small[-47:, :54]
        image = torch.fft.irfft2(spectrum, s=shape)
        shifts = self.SHIFTS * 2
        frames = (moving(image, shifts) + 20).numpy()
        settings = MotionSettings(0.75, patches=(1, 1), binning=binning, dose_weighting=False)
        result = correct_movie(frames, None, None, settings)
        assert result.binning == pytest.approx(binning, rel=2e-4)
        assert result.pixel_size == pytest.approx(0.75 * result.binning)
        height, width = result.micrograph.shape
        assert (height, width) == tuple(2 * round(side / binning / 2) for side in shape)
        y, x = (torch.arange(length).double() * result.binning for length in (height, width))
        fy, fx = torch.fft.fftfreq(shape[0]).double(), torch.fft.fftfreq(shape[1]).double()
        full = torch.fft.fft2(image.double()) / image.numel()
        there = (torch.exp(2j * torch.pi * y[:, None] * fy) @ full @ torch.exp(2j * torch.pi * fx[:, None] * x)).real
        wanted = 4 * (there + 20) * result.binning**2
        inside = (slice(24, -24), slice(24, -24))
        difference = (result.micrograph - wanted)[inside]
        assert float(difference.std() / wanted[inside].std()) < 0.08

    def test_even_and_odd_frames_make_the_plain_sum(self) -> None:
        settings = MotionSettings(1.5, patches=(1, 1), plain_sum=True, even_odd=True)
        result = correct_movie(self.frames(), None, None, settings)
        assert result.even is not None
        assert result.odd is not None
        assert result.average is not None
        assert torch.allclose(result.even + result.odd, result.average, atol=1e-3)
        assert float(result.even.mean()) == pytest.approx(40, rel=1e-3)

    def test_frames_that_are_made_when_asked_for_give_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        frames, asked = self.frames(), []

        class OnDemand(Sequence):  # type: ignore[type-arg]
            def __len__(self) -> int:
                return len(frames)

            def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
                asked.append(index)
                return frames[index]

        monkeypatch.setattr("beamside.imaging.motion.frames._GROUP_BYTES", 3 * frames[0].nbytes)
        settings = MotionSettings(1.5)
        held, streamed = (correct_movie(given, None, None, settings) for given in (frames, OnDemand()))
        assert torch.equal(held.global_shifts, streamed.global_shifts)
        assert torch.allclose(held.micrograph, streamed.micrograph, atol=1e-3)
        assert max(asked.count(index) for index in range(len(frames))) <= 4

    @pytest.mark.parametrize("shift", [-40.0, 300.0])
    def test_what_a_large_shift_brings_into_view_is_mirrored(self, shift: float) -> None:
        frames = Frames([torch.arange(128.0)[:, None].expand(128, 160).contiguous()])
        nothing = torch.empty(0, dtype=torch.int64)
        correction = DetectorCorrection(None, nothing, nothing.reshape(0, 8))
        moved = sum_frames(
            frames,
            correction,
            lambda points: torch.full((1, len(points), 2), 1.0).double() * torch.tensor([shift, 0.0]),
            torch.ones(1),
            1.0,
            300.0,
            kinds=SumKinds(weighted=False, plain=True),
        )
        rows = (torch.arange(128) - int(shift)) % 256
        wanted = torch.where(rows < 128, rows, 255 - rows).float()
        assert moved.plain is not None
        assert torch.allclose(moved.plain, wanted[:, None].expand(128, 160), atol=1e-3)

    def test_the_power_spectrum_is_centred_and_symmetric_and_shows_a_grating(self) -> None:
        y = np.arange(512)[:, None]
        grating = 20 + np.cos(2 * np.pi * y * 60 / 512) + np.zeros((1, 512))
        frames = np.random.default_rng(0).normal(grating, 1.0, (6, 512, 512)).astype(np.float32)
        result = correct_movie(frames, None, None, MotionSettings(1.0, patches=(1, 1)))
        spectrum = result.power_spectrum.numpy()
        size = len(spectrum)
        assert np.allclose(spectrum[1:, 1:], spectrum[1:, 1:][::-1, ::-1], atol=1e-6 * spectrum.max())
        row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
        period = 512 / 60
        assert abs(row - size // 2) == pytest.approx(size * result.power_spectrum_pixel_size / period, abs=1)
        assert column == size // 2


class TestEdges:
    def test_one_frame_has_no_motion(self) -> None:
        frame = (texture((128, 128)) + 10).numpy()
        result = correct_movie(frame[None], None, None, MotionSettings(1.5, dose_weighting=False))
        assert not result.global_shifts.any()
        assert result.motion_total == 0
        assert np.allclose(result.micrograph.numpy(), frame, atol=1e-3)

    @pytest.mark.parametrize("frames", [2, 3, 5])
    def test_movies_of_few_frames_are_aligned(self, frames: int) -> None:
        shifts = torch.tensor([[0, 0], [2, 1], [3, 1], [4, 2], [4, 3]], dtype=torch.float64)[:frames]
        result = correct_movie(moving(texture((256, 256)), shifts, 0.5).numpy(), None, None, MotionSettings(1.5))
        assert torch.allclose(result.global_shifts, shifts, atol=0.15)

    @pytest.mark.parametrize("value", [0.0, 7.0])
    def test_a_blank_movie_gives_finite_numbers(self, value: float) -> None:
        result = correct_movie(np.full((4, 128, 128), value, np.float32), None, None, MotionSettings(1.5))
        assert result.dose_weighted is not None
        for tensor in (result.dose_weighted, result.power_spectrum, result.global_shifts):
            assert bool(torch.isfinite(tensor).all())

    def test_an_unknown_dose_weights_all_frames_alike(self) -> None:
        frames = (texture((128, 128)).expand(4, 128, 128) + 10).numpy()
        result = correct_movie(frames, None, None, MotionSettings(1.5, dose_per_frame=0.0, plain_sum=True))
        assert result.dose_weighted is not None
        assert result.average is not None
        assert torch.allclose(result.dose_weighted, result.average / 2, atol=1e-3)

    def test_frames_may_come_one_by_one_and_sides_may_be_odd(self) -> None:
        shifts = torch.tensor([[0, 0], [1.5, -2.0], [2.5, -3.0]], dtype=torch.float64)
        frames = moving(texture((201, 255)), shifts)
        result = correct_movie((frame.numpy() for frame in frames), None, None, MotionSettings(1.5))
        assert result.micrograph.shape == (201, 255)
        assert torch.allclose(result.global_shifts, shifts, atol=0.1)

    def test_the_track_is_measured_in_angstrom(self) -> None:
        shifts = torch.tensor([[0, 0], [3, 4], [3, 4], [3, 5], [3, 5], [3, 3]], dtype=torch.float64)
        frames = moving(texture((256, 256)), shifts).numpy()
        result = correct_movie(frames, None, None, MotionSettings(1.5, patches=(1, 1)))
        assert result.motion_early == pytest.approx(6 * 1.5, abs=0.3)
        assert result.motion_late == pytest.approx(2 * 1.5, abs=0.3)
        assert result.motion_total == pytest.approx(8 * 1.5, abs=0.4)

    def test_the_number_of_threads_is_put_back(self) -> None:
        before = torch.get_num_threads()
        correct_movie(np.ones((2, 64, 64), np.float32), None, None, MotionSettings(1.5), threads=2)
        assert torch.get_num_threads() == before

    def test_a_movie_without_frames_is_refused(self) -> None:
        with pytest.raises(InputError, match="no frames"):
            correct_movie([], None, None, MotionSettings(1.0))

    def test_frames_of_different_shapes_are_refused(self) -> None:
        with pytest.raises(InputError, match="frame 2"):
            correct_movie([np.ones((64, 64)), np.ones((64, 65))], None, None, MotionSettings(1.0))

    def test_pixels_that_are_not_numbers_are_refused(self) -> None:
        frames = np.ones((3, 64, 64), np.float32)
        frames[1, 5, 5] = np.nan
        with pytest.raises(InputError, match="NaN"):
            correct_movie(frames, None, None, MotionSettings(1.0))

    def test_a_gain_of_another_shape_is_refused(self) -> None:
        with pytest.raises(GainError):
            correct_movie(np.ones((3, 64, 64), np.float32), np.ones((32, 64)), None, MotionSettings(1.0))

    @pytest.mark.parametrize(
        "wrong", [{"pixel_size": 0.0}, {"dose_per_frame": -1.0}, {"patches": (0, 5)}, {"binning": 0.5}]
    )
    def test_impossible_settings_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ConfigError):
            MotionSettings(**({"pixel_size": 1.0} | wrong))


def test_several_threads_give_what_one_gives() -> None:
    movie = simulate_movie(MovieSettings(size=(320, 352), frames=8, pixel_size=1.35, dose_per_frame=2.0), seed=6)
    settings = MotionSettings(1.35, dose_per_frame=2.0)
    one, three = (correct_movie(movie.counts, movie.gain.gain, None, settings, threads=n) for n in (1, 3))
    assert torch.allclose(one.global_shifts, three.global_shifts, atol=1e-3)
    assert one.dose_weighted is not None
    assert three.dose_weighted is not None
    assert float((one.dose_weighted - three.dose_weighted).std()) < 0.01 * float(one.dose_weighted.std())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_graphics_card_gives_what_the_processor_gives() -> None:
    movie = simulate_movie(MovieSettings(size=(512, 544), frames=12, pixel_size=1.35, dose_per_frame=2.0), seed=6)
    settings = MotionSettings(1.35, dose_per_frame=2.0, plain_sum=True, even_odd=True, binning=1.5)
    first, second = (correct_movie(movie.counts, movie.gain.gain, None, settings, device=d) for d in ("cpu", "cuda"))
    assert ours(second, movie) < ours(first, movie) + 0.05
    assert torch.equal(first.hot_pixels, second.hot_pixels.cpu())
    for name in ("average", "dose_weighted", "even", "odd"):
        one, other = getattr(first, name), getattr(second, name).cpu()
        assert float((one - other).std()) < 0.05 * float(one.std())
