"""What other Florence-2 projects got wrong, and the tests of ours that would go red: an index, kept true.

Rows 15 (merged adapters) and 16 (score protocols of AP) come with the parts they are about.
"""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

TRAPS: dict[int, tuple[str, dict[str, tuple[str, ...]]]] = {
    1: (
        "labels are shifted once, padding is never in the loss, the question reaches the model",
        {
            "data/test_mixture.py": (
                "test_the_decoder_reads_the_labels_one_behind",
                "test_the_question_is_in_the_prompt",
            ),
            "training/test_loss.py": (
                "test_padding_has_no_gradient",
                "test_the_question_and_the_picture_reach_the_logits",
                "test_loss_and_gradients_are_those_of_transformers",
            ),
        },
    ),
    2: (
        "no writer can produce bin 1000",
        {
            "contract/test_locations.py": ("test_trap_2_no_coordinate_makes_bin_1000",),
            "contract/test_answers.py": ("test_trap_2_a_location_past_the_last_is_the_edge",),
            "data/test_mixture.py": ("test_no_target_and_no_prompt_says_bin_1000",),
        },
    ),
    3: (
        "the ban on repeated trigrams never touches structured answers",
        {
            "model/test_decode.py": (
                "test_only_prose_keeps_the_ban_on_repeated_runs",
                "test_a_structured_answer_may_repeat_itself",
            )
        },
    ),
    4: (
        "the first token is <s>, which never comes again",
        {"model/test_decode.py": ("test_bos_comes_first_and_never_again",)},
    ),
    5: (
        "the head is tied in every load path; a wrong key is named",
        {
            "model/test_network.py": ("test_the_output_head_is_the_embedding",),
            "model/test_checkpoint.py": (
                "test_any_of_the_tied_names_is_enough",
                "test_missing_extra_and_misshapen_keys_are_all_named",
            ),
        },
    ),
    6: (
        "every published checkpoint is a row of the load test",
        {"model/test_layouts.py": ("test_every_published_checkpoint_fits_key_by_key",)},
    ),
    7: (
        "the padding mask is honoured: a batch answers as each request alone",
        {
            "model/test_network.py": ("test_a_padded_batch_answers_as_each_request_alone",),
            "model/test_decode.py": ("test_a_batch_answers_as_each_request_alone",),
            "model/test_predict.py": ("test_mixed_requests_are_answered_as_one_by_one",),
        },
    ),
    8: (
        "a finished beam leaves with the score it had",
        {
            "model/test_decode.py": (
                "test_beams_give_the_published_tokens",
                "test_other_settings_give_the_tokens_of_transformers",
            )
        },
    ),
    9: (
        "cached, uncached, batched and single decoding give the same tokens",
        {"model/test_decode.py": ("test_cached_batched_answers_are_those_of_plain_single_decoding",)},
    ),
    10: (
        "accents, punctuation and empty labels survive",
        {"contract/test_answers.py": ("test_trap_10_labels_of_any_script_survive",)},
    ),
    11: (
        "an echoed region is not part of the text",
        {"contract/test_answers.py": ("test_trap_11_the_echoed_region_is_not_part_of_the_text",)},
    ),
    12: (
        "swapped corners are put in order and counted",
        {"contract/test_answers.py": ("test_trap_12_swapped_corners_are_put_in_order_and_counted",)},
    ),
    13: (
        "the limit comes from the position table; a cut answer says so",
        {
            "model/test_decode.py": ("test_the_whole_position_table_can_be_used_and_no_more",),
            "model/test_network.py": ("test_too_many_tokens_are_refused_by_the_tables_of_this_checkpoint",),
            "model/test_predict.py": ("test_an_answer_that_was_cut_says_so",),
        },
    ),
    14: (
        "frozen means requires_grad=False",
        {
            "training/test_adapt.py": (
                "test_a_frozen_part_does_not_move_and_everything_else_does",
                "test_the_rate_of_the_tower_does_not_thaw_it",
            )
        },
    ),
    15: (
        "merging an adapter changes speed, not answers",
        {
            "model/test_adapters.py": (
                "test_merging_changes_no_answer_and_can_be_undone",
                "test_a_model_with_an_adapter_answers_as_the_network_does_unmerged",
            )
        },
    ),
    16: (
        "average precision names its score protocol and the order of ties",
        {
            "evaluation/test_detection.py": (
                "test_the_protocol_decides_what_the_same_boxes_score",
                "test_the_sweep_saw_every_protocol",
            )
        },
    ),
    17: (
        "an empty answer is typed and knows its image size",
        {
            "contract/test_answers.py": ("test_trap_17_an_empty_answer_is_typed_and_knows_its_image",),
            "contract/test_regions.py": ("test_trap_17_an_empty_answer_becomes_empty_shapes",),
            "model/test_predict.py": ("test_an_empty_answer_is_typed_and_knows_its_image",),
        },
    ),
    18: (
        "deterministic unless sampling was asked for",
        {
            "model/test_predict.py": (
                "test_the_same_question_gives_the_same_answer",
                "test_sampling_draws_and_is_seeded",
            )
        },
    ),
    19: (
        "reduced precision only when asked for",
        {"model/test_predict.py": ("test_the_number_type_is_the_one_that_was_asked_for",)},
    ),
    20: (
        "with the network off, everything local works",
        {"model/test_predict.py": ("test_a_folder_loads_and_answers_without_a_network",)},
    ),
    21: (
        "a coordinate comes back to within half a bin at every size",
        {"contract/test_locations.py": ("test_trap_21_a_coordinate_returns_to_within_half_a_bin",)},
    ),
    22: ("width and height are never swapped", {"contract/test_locations.py": ("test_trap_22_width_goes_with_x",)}),
    23: (
        "the division by the bin size comes first",
        {"contract/test_locations.py": ("test_trap_23_the_division_by_the_bin_size_comes_first",)},
    ),
    24: (
        "orientation is applied, every mode becomes RGB",
        {
            "model/test_images.py": (
                "test_all_eight_orientations_are_turned_upright",
                "test_sixteen_bits_are_scaled_and_not_clipped",
                "test_inks_and_other_colour_spaces",
                "test_transparency_lies_over_white",
            ),
            "model/test_predict.py": ("test_boxes_of_a_turned_photograph_are_upright",),
        },
    ),
}


@pytest.mark.parametrize("row", TRAPS)
def test_a_trap_has_its_tests(row):
    claim, files = TRAPS[row]
    for file, names in files.items():
        defined = set(re.findall(r"^def (test_\w+)", (TESTS / file).read_text("utf-8"), re.MULTILINE))
        assert set(names) <= defined, f"trap {row} ({claim}): {file} lacks {sorted(set(names) - defined)}"


def test_the_sweep_saw_every_trap_of_what_exists():
    assert set(TRAPS) == set(range(1, 25))
