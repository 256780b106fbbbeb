"""`ilora reproduce` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ilora_cli.main import main

ROOT = Path(__file__).parents[1]


def ilora(*arguments, cwd):
    command = [sys.executable, "-m", "ilora_cli.main", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


def test_a_figure_on_rooms_from_nothing_to_its_report_and_a_second_time_for_free(tmp_path):
    first = ilora("reproduce", "fig8", "--quick", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "rank 8 beats rank 1" in first.stdout
    assert "of 1)" in first.stderr
    folder = tmp_path / "runs" / "reproduce" / "rooms-quick" / "fig8"
    kept = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (kept["world"], kept["quick"]) == ("rooms", True)
    rows = kept["parts"][0]["rows"]
    assert [row["labels"]["rank"] for row in rows] == ["1", "8"]
    assert [row["costs"]["trained"] for row in rows] == [9_408, 75_264]
    assert all(20 < row["figures"]["mean_deg"]["value"] < 80 for row in rows)
    assert {"results.json", "report.md", "report.html", *kept["pictures"]} == {path.name for path in folder.iterdir()}
    again = ilora("reproduce", "fig8", "--quick", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    (told,) = json.loads(again.stdout)
    assert told["parts"] == kept["parts"]


def test_table5_counts_without_training(tmp_path, capsys):
    assert main(["reproduce", "table5", "--out", str(tmp_path / "out"), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    rows = {row[1]: row for row in told["tables"][0]["rows"]}
    assert rows["sd15"][2:5] == ["943,174,827", "1,594,368", "0.169 %"]
    assert rows["stylegan2-ffhq"][2:5] == ["24,767,458", "141,312", "0.571 %"]
    assert rows["styleganxl-imagenet"][2:5] == ["166,267,046", "342,528", "0.206 %"]
    assert rows["vqgan-ffhq"][2:5] == ["873,940,099", "131,072", "0.015 %"]
    assert any("0.76 %" in note for note in told["footnotes"])


def test_targets_are_listed_and_counted(tmp_path, capsys):
    assert main(["reproduce"]) == 0
    assert "table4   LoRA against linear probing" in capsys.readouterr().out
    assert main(["reproduce", "fig8", "fig9", "--dry-run", "--out", str(tmp_path / "none")]) == 0
    assert "fig8       18 cells" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_mistakes_are_one_message(capsys):
    for arguments, words in (
        (["fig99"], "no target 'fig99'"),
        (["fig8", "--world", "mars"], "no world is called 'mars'"),
        (["fig8", "--world", "paper"], "--data FOLDER"),
    ):
        assert main(["reproduce", *arguments]) == 2
        shown = capsys.readouterr().err
        assert words in shown
        assert "Traceback" not in shown


def test_the_page_of_results_is_what_its_records_say():
    command = [sys.executable, str(ROOT / "docs" / "make_results.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
