"""What the commands print is what they were given."""

from rich.console import Console

from edits.terminal import rows_table


def test_brackets_in_a_row_are_text_and_no_markup():
    """Spellings that an attack found, and reasons that an operator wrote."""
    console = Console(width=80)
    with console.capture() as printed:
        console.print(rows_table("found", [{"taken on": "[pistol]"}, {"taken on": "[/b] gun"}]))
    assert "[pistol]" in printed.get()
    assert "[/b] gun" in printed.get()
