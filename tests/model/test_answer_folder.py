"""Answers on disk."""

from openflorence.model.answer_folder import stems


def test_every_image_has_a_file_name_of_its_own_that_can_be_one():
    names = ["data:image/png;base64," + "A" * 9000, "http://x/a.png?b=/c/d", "http://x/", "y" * 300 + ".png"]
    assert [len(stem) for stem in stems(names).values()] == [5, 1, 1, 80]
    many = stems(f"{number}/img.jpg" for number in range(20_000))  # a moment, also for many
    assert len(set(many.values())) == 20_000
