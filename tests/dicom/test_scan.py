"""What makes a volume and what does not, on series written for one peculiarity each."""

from pathlib import Path

import numpy as np
import pytest
from synthetic import AXIAL, SHAPE, SPACING, Plan, hu_volume, oblique, set_hu, write

from medvl.dicom.read import read, read_values
from medvl.dicom.scan import scan
from medvl.dicom.series import Series
from medvl.dicom.verify import verify
from medvl.errors import InputError


def only(folder: Path) -> Series:
    found = scan(folder)
    assert len(found.series) == 1, [(s.codes, s.n_files) for s in found.series]
    return verify(found.series[0])


def codes(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    return sorted((s.verdict, s.codes) for s in map(verify, scan(folder).series))


def test_slices_are_sorted_by_place_not_by_number_or_name(tmp_path: Path) -> None:
    def lie(ds, k):
        ds.InstanceNumber = [3, 5, 1, 4, 2][k]

    plan = Plan(change=lie)
    write(tmp_path, plan)
    volume = read(only(tmp_path))
    assert np.array_equal(volume.hu, plan.hu)
    assert volume.hu.dtype == np.int16
    assert volume.geometry.axes == "SPL"
    assert np.allclose(volume.geometry.spacing_mm, SPACING)
    assert np.allclose(volume.geometry.to_lps((0, 0, 0)), plan.origin)


def test_an_oblique_stack_keeps_its_place(tmp_path: Path) -> None:
    plan = Plan(orientation=oblique())
    write(tmp_path, plan)
    volume = read(only(tmp_path))
    row, column = np.array(plan.orientation[:3]), np.array(plan.orientation[3:])
    d, h, w = 4, 6, 9
    truth = plan.position(d) + h * SPACING[1] * column + w * SPACING[2] * row
    assert np.allclose(volume.geometry.to_lps((d, h, w)), truth, atol=1e-4)
    assert np.array_equal(volume.hu, plan.hu)
    assert volume.geometry.shear_deg < 1e-3


def test_a_stack_written_downwards_is_turned_to_ascend(tmp_path: Path) -> None:
    plan = Plan(step=np.array([0, 0, -2.5]))
    write(tmp_path, plan)
    volume = read(only(tmp_path))
    assert np.array_equal(volume.hu, plan.hu[::-1])
    assert np.allclose(volume.geometry.to_lps((0, 0, 0)), plan.position(4))
    assert volume.geometry.axes == "SPL"


def test_rows_that_run_to_the_front_stay_and_the_affine_says_so(tmp_path: Path) -> None:
    plan = Plan(orientation=(1, 0, 0, 0, -1, 0))
    write(tmp_path, plan)
    volume = read(only(tmp_path))
    assert volume.geometry.axes == "IAL"
    assert np.array_equal(volume.hu, plan.hu)


@pytest.mark.parametrize("signed", [True, False])
def test_twelve_bits_signed_or_not_with_dirty_high_bits(tmp_path: Path, signed: bool) -> None:
    def dirt(ds, k):
        words = np.frombuffer(ds.PixelData, "<u2") | np.uint16(0xA000)
        ds.PixelData = words.tobytes()

    plan = Plan(bits=12, signed=signed, intercept=0.0 if signed else -1024.0, change=dirt)
    write(tmp_path, plan)
    assert np.array_equal(read(only(tmp_path)).hu, plan.hu)


def test_high_bit_above_the_stored_bits_is_shifted_down(tmp_path: Path) -> None:
    def shift(ds, k):
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") << 4).astype("<u2").tobytes()
        ds.HighBit = 15

    plan = Plan(bits=12, change=shift)
    write(tmp_path, plan)
    assert np.array_equal(read(only(tmp_path)).hu, plan.hu)


def test_rescale_is_applied_slice_by_slice(tmp_path: Path) -> None:
    plan = Plan()

    def own(ds, k):
        ds.RescaleIntercept = -1024 - 8 * k
        set_hu(ds, plan.hu[k])

    plan.change = own
    write(tmp_path, plan)
    series = only(tmp_path)
    assert series.codes == ("rescale_per_slice",)
    assert np.array_equal(read(series).hu, plan.hu)


def test_a_fractional_slope_gives_floats(tmp_path: Path) -> None:
    plan = Plan(slope=0.5)
    write(tmp_path, plan)
    volume = read(only(tmp_path))
    assert volume.hu.dtype == np.float32
    assert np.array_equal(volume.hu, plan.hu.astype(np.float32))


def test_values_beyond_int16_give_floats_not_a_wrap(tmp_path: Path) -> None:
    plan = Plan(signed=True)

    def pad(ds, k):
        words = np.frombuffer(ds.PixelData, "<i2").copy()
        words[:3] = -32768
        ds.PixelData, ds.PixelPaddingValue = words.tobytes(), -32768

    plan.change = pad
    write(tmp_path, plan)
    series = only(tmp_path)
    volume = read(series)
    assert volume.hu.dtype == np.float32
    assert (volume.hu[:, 0, :3] == -33792).all()
    assert volume.facts["padding_hu"] == -33792
    assert np.array_equal(volume.hu[:, 1:], plan.hu[:, 1:])


def test_monochrome1_keeps_hounsfield_units(tmp_path: Path) -> None:
    plan = Plan(change=lambda ds, k: setattr(ds, "PhotometricInterpretation", "MONOCHROME1"))
    write(tmp_path, plan)
    series = only(tmp_path)
    assert (series.verdict, series.codes) == ("volume", ("monochrome1",))
    assert np.array_equal(read(series).hu, plan.hu)


def test_positions_rounded_to_tenths_are_even(tmp_path: Path) -> None:
    shape = (16, 7, 11)

    def rounded(ds, k):
        ds.ImagePositionPatient = [-12, 30, round(-55 + 0.625 * k, 1)]

    plan = Plan(hu=hu_volume(shape), change=rounded)
    write(tmp_path, plan)
    volume = read(only(tmp_path))
    assert volume.geometry.spacing_mm[0] == pytest.approx(0.625, abs=0.005)


def test_identical_copies_are_dropped_and_the_volume_kept(tmp_path: Path) -> None:
    plan = Plan()
    write(tmp_path / "a", plan)
    write(tmp_path / "b" / "again", plan)
    series = only(tmp_path)
    assert (series.verdict, series.codes, series.n_files) == ("volume", ("duplicate_slices",), 10)
    assert np.array_equal(read(series).hu, plan.hu)


def test_two_different_images_at_one_place_are_refused(tmp_path: Path) -> None:
    plan = Plan()
    write(tmp_path, plan)
    other = Plan(hu=hu_volume(seed=4), series_uid=plan.series_uid, study_uid=plan.study_uid)
    write(tmp_path, other, slices=[2], prefix="other")
    series = only(tmp_path)
    assert (series.verdict, series.codes) == ("refused", ("conflicting_slices",))
    assert "1 of 6" in series.reasons[0].message


@pytest.mark.parametrize("lost", [[2], [1, 3], [2, 3]])
def test_a_gap_of_whole_steps_is_a_missing_slice(tmp_path: Path, lost: list[int]) -> None:
    plan = Plan(hu=hu_volume((9, 7, 11)))
    write(tmp_path, plan, slices=[k for k in range(9) if k not in lost])
    series = only(tmp_path)
    assert (series.verdict, series.codes) == ("refused", ("missing_slice",))
    assert f"{len(lost)} slice" in series.reasons[0].message
    assert series.geometry is None
    assert series.shape_dhw == (9 - len(lost), 7, 11)


def test_a_gap_between_two_acquisitions_is_still_a_missing_slice(tmp_path: Path) -> None:
    plan = Plan(hu=hu_volume((9, 7, 11)), change=lambda ds, k: setattr(ds, "AcquisitionNumber", 1 + (k > 4)))
    write(tmp_path, plan, slices=[k for k in range(9) if k != 4])
    assert only(tmp_path).codes == ("missing_slice",)


def test_changing_steps_are_irregular(tmp_path: Path) -> None:
    def uneven(ds, k):
        ds.ImagePositionPatient = [-12, 30, [0, 2.5, 5, 8.75, 12.5][k]]

    write(tmp_path, Plan(change=uneven))
    assert only(tmp_path).codes == ("irregular_spacing",)


def test_a_sideways_jump_is_refused(tmp_path: Path) -> None:
    def jump(ds, k):
        ds.ImagePositionPatient = [-12 + (6 if k == 2 else 0), 30, -55 + 2.5 * k]

    write(tmp_path, Plan(change=jump))
    assert only(tmp_path).codes == ("shifted_slices",)


def test_one_place_for_all_is_no_volume(tmp_path: Path) -> None:
    write(tmp_path, Plan(change=lambda ds, k: setattr(ds, "ImagePositionPatient", [-12, 30, -55])))
    assert only(tmp_path).codes == ("same_position",)


def test_two_phases_in_one_series_are_told_apart(tmp_path: Path) -> None:
    first = Plan(change=lambda ds, k: setattr(ds, "AcquisitionNumber", 1))
    second = Plan(
        hu=hu_volume(seed=8),
        series_uid=first.series_uid,
        study_uid=first.study_uid,
        change=lambda ds, k: setattr(ds, "AcquisitionNumber", 2),
    )
    write(tmp_path, first)
    write(tmp_path, second, prefix="b")
    found = scan(tmp_path).series
    assert [(s.verdict, s.codes, s.n_files) for s in found] == [("volume", ("split_series",), 5)] * 2
    assert len({s.key for s in found}) == 2
    volumes = [read(s).hu for s in found]
    assert {v.tobytes() for v in volumes} == {first.hu.tobytes(), second.hu.tobytes()}


def test_two_orientations_in_one_series_are_told_apart(tmp_path: Path) -> None:
    first = Plan()
    second = Plan(orientation=(0, 1, 0, 0, 0, -1), series_uid=first.series_uid, study_uid=first.study_uid)
    write(tmp_path, first)
    write(tmp_path, second, prefix="b")
    assert sorted(s.geometry.axes for s in scan(tmp_path).series if s.geometry) == ["RIP", "SPL"]


def test_a_localiser_inside_the_series_is_set_apart(tmp_path: Path) -> None:
    plan = Plan()
    write(tmp_path, plan)

    def scout(ds, k):
        ds.ImageType, ds.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [1, 0, 0, 0, 0, -1]

    write(tmp_path, Plan(series_uid=plan.series_uid, study_uid=plan.study_uid, change=scout), slices=[0], prefix="scout")
    assert codes(tmp_path) == [("refused", ("localizer", "split_series")), ("volume", ("split_series",))]


@pytest.mark.parametrize("missing", ["ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"])
def test_no_place_is_ever_invented(tmp_path: Path, missing: str) -> None:
    write(tmp_path, Plan(change=lambda ds, k: delattr(ds, missing)))
    series = only(tmp_path)
    assert (series.verdict, series.codes, series.geometry) == ("refused", ("missing_geometry",), None)
    with pytest.raises(InputError, match="missing_geometry"):
        read(series)


def test_one_slice_without_a_place_leaves_a_gap_in_the_rest(tmp_path: Path) -> None:
    def drop(ds, k):
        if k == 2:
            del ds.ImagePositionPatient

    write(tmp_path, Plan(change=drop))
    assert codes(tmp_path) == [("refused", ("missing_geometry", "split_series")), ("refused", ("missing_slice", "split_series"))]


def test_lying_thickness_and_spacing_tags_lose_against_positions(tmp_path: Path) -> None:
    def lie(ds, k):
        ds.SliceThickness, ds.SpacingBetweenSlices = 5, 1.25

    write(tmp_path, Plan(change=lie))
    series = only(tmp_path)
    assert (series.verdict, series.codes) == ("volume", ("spacing_tag_ignored", "overlapping_slices"))
    assert series.geometry is not None
    assert series.geometry.spacing_mm[0] == pytest.approx(2.5)


def test_a_single_slice_is_refused_and_two_are_a_volume(tmp_path: Path) -> None:
    plan = Plan()
    write(tmp_path / "one", plan, slices=[0])
    write(tmp_path / "two", plan, slices=[0, 1])
    assert only(tmp_path / "one").codes == ("too_few_slices",)
    assert only(tmp_path / "two").verdict == "volume"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda ds, k: setattr(ds, "Modality", "MR"), "not_ct"),
        (lambda ds, k: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.4"), "wrong_modality"),
        (lambda ds, k: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"), "secondary_capture"),
        (lambda ds, k: setattr(ds, "ImageType", ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]), "not_hounsfield"),
        (lambda ds, k: setattr(ds, "RescaleType", "Z_EFF"), "not_hounsfield"),
        (lambda ds, k: setattr(ds, "PixelData", b"\1\4" * 77), "not_hounsfield"),
    ],
)
def test_other_kinds_of_images_are_refused(tmp_path: Path, change, code: str) -> None:
    write(tmp_path, Plan(change=change))
    series = only(tmp_path)
    assert (series.verdict, series.codes[0]) == ("refused", code)


def test_values_without_air_or_fat_are_another_modality(tmp_path: Path) -> None:
    write(tmp_path, Plan(hu=(hu_volume() // 4 + 300).astype(np.int16)))
    assert only(tmp_path).codes == ("wrong_modality",)


def test_a_rescale_applied_twice_is_seen(tmp_path: Path) -> None:
    hu = np.full((5, 16, 13), -1000, np.int16)
    hu[:, 4:12, 3:9] = 40
    noise = np.random.default_rng(1).integers(-20, 20, hu.shape)
    write(tmp_path, Plan(hu=(hu + noise - 1024).astype(np.int16), signed=True))
    assert only(tmp_path).codes == ("rescaled_twice",)


def test_a_missing_intercept_is_seen(tmp_path: Path) -> None:
    hu = np.full((5, 16, 13), 24, np.int16)
    hu[:, 4:12, 3:9] = 1064
    hu += np.random.default_rng(1).integers(-20, 20, hu.shape).astype(np.int16)

    def forget(ds, k):
        del ds.RescaleIntercept, ds.RescaleSlope

    write(tmp_path, Plan(hu=hu, intercept=0.0, change=forget))
    assert only(tmp_path).codes == ("rescale_missing", "rescale_absent")


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
@pytest.mark.parametrize("signed", [True, False])
def test_implicit_big_endian_and_deflated_read_alike(tmp_path: Path, syntax: str, signed: bool) -> None:
    plan = Plan(bits=12, syntax=syntax, signed=signed, intercept=0.0 if signed else -1024.0)
    write(tmp_path, plan)
    assert np.array_equal(read(only(tmp_path)).hu, plan.hu)


def test_files_without_preamble_are_read(tmp_path: Path) -> None:
    plan = Plan()
    for path in write(tmp_path, plan):
        path.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(read(only(tmp_path)).hu, plan.hu)


def test_a_mixed_nested_folder_loses_nothing_in_silence(tmp_path: Path) -> None:
    plan = Plan()
    paths = write(tmp_path / "deep" / "er", plan)
    write(tmp_path, Plan(study_uid=plan.study_uid, hu=hu_volume((3, 7, 11))), prefix="other")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "junk.dcm").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "half").write_bytes(paths[0].read_bytes()[:400])
    found = scan(tmp_path)
    assert sorted(s.n_files for s in found.series) == [3, 5]
    assert {s.verdict for s in found.series} == {"volume"}
    assert {one.path: one.reason.code for one in found.rejected} == {
        "notes.txt": "not_dicom",
        "empty": "not_dicom",
        "junk.dcm": "not_dicom",
        "half": "truncated_file",
    }


def test_a_truncated_slice_is_reported_and_missed_even_at_the_end(tmp_path: Path) -> None:
    plan = Plan()
    last = write(tmp_path, plan)[-1]
    last.write_bytes(last.read_bytes()[:-20])
    found = scan(tmp_path)
    assert [(one.path, one.reason.code) for one in found.rejected] == [(last.name, "truncated_file")]
    assert [(s.verdict, s.codes) for s in found.series] == [("refused", ("missing_slice",))]


def test_a_truncated_copy_of_an_intact_slice_costs_nothing(tmp_path: Path) -> None:
    plan = Plan()
    last = write(tmp_path, plan)[-1]
    (tmp_path / "copy").write_bytes(last.read_bytes()[:-20])
    found = scan(tmp_path)
    assert [one.path for one in found.rejected] == ["copy"]
    assert [s.verdict for s in found.series] == ["volume"]


def test_a_file_that_shrinks_after_the_scan_is_an_error_not_zeros(tmp_path: Path) -> None:
    paths = write(tmp_path, Plan())
    series = only(tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    with pytest.raises(InputError, match="truncated_file"):
        read(series)


def test_nothing_that_is_kept_names_the_patient(tmp_path: Path) -> None:
    plan = Plan(change=lambda ds, k: setattr(ds, "SeriesDescription", "Secret^Name portal venous 2mm"))
    write(tmp_path, plan)
    series = only(tmp_path)
    text = f"{series.key} {series.study} {dict(series.facts)} {series.reasons} {read(series).facts}"
    assert "Secret" not in text and "SECRET" not in text
    assert plan.series_uid not in text and plan.study_uid not in text
    assert series.facts["phase_hints"] == ["portal_venous"]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    write(tmp_path / "a", Plan())
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert only(tmp_path).n_files == 5


def test_keys_depend_on_the_series_alone(tmp_path: Path) -> None:
    plan = Plan()
    write(tmp_path / "x", plan)
    write(tmp_path / "y" / "z", plan)
    assert only(tmp_path / "x").key == only(tmp_path / "y").key
    assert len(only(tmp_path / "x").key) == 10


@pytest.mark.parametrize("degrees", [14.0, -20.0])
@pytest.mark.parametrize("tagged", [True, False])
def test_gantry_tilt_is_resampled_to_true_places(tmp_path: Path, degrees: float, tagged: bool) -> None:
    """A linear field in world millimetres survives a shear exactly, wherever the grid is known."""
    angle = np.radians(degrees)
    orientation = (1, 0, 0, 0, np.cos(angle), np.sin(angle))
    gradient = np.array([3.0, -5.0, 7.0])
    plan = Plan(hu=np.zeros(SHAPE, np.int16), orientation=orientation, step=np.array([0, 0, 2.5]))
    column, row = np.array(orientation[3:]), np.array(orientation[:3])
    d, h, w = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    world = np.asarray(plan.origin) + d[..., None] * plan.step_vector + h[..., None] * 0.8 * column + w[..., None] * 0.7 * row
    plan.hu = np.rint(10 * (world @ gradient)).astype(np.int16)
    plan.hu -= plan.hu.max() - 300
    offset = int(plan.hu[0, 0, 0]) - 10 * float(world[0, 0, 0] @ gradient)
    plan.signed, plan.intercept = True, 0.0
    if tagged:
        plan.change = lambda ds, k: setattr(ds, "GantryDetectorTilt", degrees)
    write(tmp_path, plan)
    series = only(tmp_path)
    assert series.codes == ("tilt_resampled",)
    assert ("as tagged" in series.reasons[0].message) == tagged
    volume = read(series)
    assert volume.geometry.shear_deg < 1e-5
    assert volume.geometry.spacing_mm[0] == pytest.approx(2.5 * abs(np.cos(angle)), abs=1e-5)
    known = volume.hu != -1024
    assert known.mean() > 0.5
    index = np.argwhere(known)
    truth = 10 * (volume.geometry.to_lps(index) @ gradient) + offset
    assert np.abs(volume.hu[known] - truth).max() <= 2.0
    assert np.array_equal(read_values(series), plan.hu)


def test_a_tilt_tag_without_tilt_in_the_geometry_is_not_believed(tmp_path: Path) -> None:
    plan = Plan(change=lambda ds, k: setattr(ds, "GantryDetectorTilt", 16))
    write(tmp_path, plan)
    series = only(tmp_path)
    assert series.codes == ("tilt_tag_ignored",)
    assert np.array_equal(read(series).hu, plan.hu)


def test_the_axial_plan_is_what_the_tests_believe() -> None:
    assert Plan().orientation == AXIAL
    assert Plan().hu.shape == SHAPE


def test_a_damaged_scout_costs_the_stack_nothing(tmp_path: Path) -> None:
    plan = Plan()
    write(tmp_path, plan)
    scout = Plan(orientation=(1, 0, 0, 0, 0, -1), series_uid=plan.series_uid, study_uid=plan.study_uid)
    (path,) = write(tmp_path, scout, slices=[0], prefix="scout")
    path.write_bytes(path.read_bytes()[:-20])
    assert codes(tmp_path) == [("volume", ())]
