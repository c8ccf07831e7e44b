"""All against all gives the same to the last bit, whatever the tiles, devices and processes."""

from tests.multi.launch import LAYOUTS, launch


def test_matches_do_not_depend_on_tiles_devices_or_processes(tmp_path):
    layouts = enumerate(({}, *LAYOUTS))
    found = [one for number, options in layouts for one in launch("matching_worker", tmp_path / str(number), **options)]
    assert [one["devices"] for one in found] == [1, 2, 2, 8, 8, 8, 8]
    first = found[0]["told"]
    assert first["tile 1024"] == first["tile 4096"]
    assert all(one["told"] == first for one in found)


def test_parts_that_one_process_kept_serve_two(tmp_path):
    (alone,) = launch("matching_worker", tmp_path)
    for part in list(tmp_path.iterdir())[::2]:
        part.unlink()
    kept = {part: part.stat().st_mtime_ns for part in tmp_path.iterdir()}
    assert kept
    for one in launch("matching_worker", tmp_path, processes=2):
        assert one["told"] == alone["told"]
    assert all(part.stat().st_mtime_ns == before for part, before in kept.items())
