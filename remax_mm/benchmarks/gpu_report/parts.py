"""The parts of the report, the most informative ones first."""
from .cuda_tests import list_test_cases, run_tests
from .inference import list_inference_cases, measure_inference
from .machine import list_machine_cases, measure_machine
from .mini_training import list_mini_cases, train_mini
from .part import Part
from .step_shares import measure_shares
from .trainee import list_model_cases
from .training_steps import (list_mask2former_cases, list_training_cases, measure_checkpointing,
                             measure_training)

PARTS = {
    part.name: part
    for part in (
        Part('machine', 'Machine', 5, list_machine_cases, measure_machine, needs_device=False),
        Part('tests', 'Tests', 10, list_test_cases, run_tests),
        Part('training', 'Training step', 40, list_training_cases, measure_training),
        Part('inference', 'Inference', 20, list_inference_cases, measure_inference),
        Part('mask2former', "Training step of MMDetection's Mask2Former", 8, list_mask2former_cases,
             measure_training),
        Part('shares', 'Where the time of a training step goes', 8, list_model_cases, measure_shares),
        Part('mini', 'Short training', 12, list_mini_cases, train_mini),
        Part('checkpointing', 'Activation checkpointing', 6, list_model_cases, measure_checkpointing),
    )
}
