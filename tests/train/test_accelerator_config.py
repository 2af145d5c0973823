"""`accelerator_config`: read from what scripts give, used where it means something, refused where it would mislead."""

import json

import pytest
from training_samples import arguments, model, rows

import cutaway
from cutaway.errors import ConfigError
from cutaway.train.accelerator_config import AcceleratorConfig

NAME = "BertForSequenceClassification"


def test_it_is_read_from_a_dict_a_text_a_file_and_itself(tmp_path):
    given = {"split_batches": True, "even_batches": False, "gradient_accumulation_kwargs": {"num_steps": 3}}
    file = tmp_path / "accelerate.json"
    file.write_text(json.dumps(given))
    for form in (given, json.dumps(given), file, str(file), AcceleratorConfig(**given)):
        args = arguments(tmp_path, accelerator_config=form)
        assert args.accelerator_config == AcceleratorConfig(**given) and args.gradient_accumulation_steps == 3
        again = cutaway.TrainingArguments(**args.to_dict())
        assert again.accelerator_config == args.accelerator_config
    assert AcceleratorConfig.from_json_file(file).to_dict() | given == AcceleratorConfig(**given).to_dict()
    assert AcceleratorConfig.read({"split_batches": "True"}).split_batches is True


def test_a_trainer_shows_it_and_trains_in_its_parts(tmp_path):
    parts = {"gradient_accumulation_kwargs": {"num_steps": 2, "sync_each_batch": True}, "dispatch_batches": True}
    args = arguments(tmp_path, num_train_epochs=1, per_device_train_batch_size=2, accelerator_config=parts)
    trainer = cutaway.Trainer(model(NAME), args, train_dataset=rows(NAME, 8))
    trainer.train()
    assert trainer.state.global_step == 2
    told = trainer.accelerator
    assert (told.split_batches, told.dispatch_batches, told.even_batches) == (False, True, True)
    assert told.use_seedable_sampler
    plain = cutaway.Trainer(model(NAME), arguments(tmp_path)).accelerator
    assert (plain.split_batches, plain.dispatch_batches, plain.even_batches) == (False, None, True)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"batches": 1}, "'batches'"), ({"even_batches": 2}, "even_batches"), ("{", "neither JSON"), (3, "give a dict"),
        ({"use_configured_state": True}, "use_configured_state"), ("nowhere.json", "nowhere.json"),
        ({"gradient_accumulation_kwargs": {"num_steps": 0}}, "num_steps"),
        ({"gradient_accumulation_kwargs": {"steps": 1}}, "'steps'"), ({"gradient_accumulation_kwargs": 4}, "a dict"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong, told, tmp_path):
    with pytest.raises(ConfigError, match=told):
        arguments(tmp_path, accelerator_config=wrong)


def test_what_would_mislead_is_refused(tmp_path):
    two = {"gradient_accumulation_kwargs": {"num_steps": 2}}
    with pytest.raises(ConfigError, match="num_steps = 2 and gradient_accumulation_steps is 4"):
        arguments(tmp_path, accelerator_config=two, gradient_accumulation_steps=4)
    assert arguments(tmp_path, accelerator_config=two, gradient_accumulation_steps=2).gradient_accumulation_steps == 2
    AcceleratorConfig(split_batches=True).check_processes(1)
    with pytest.raises(ConfigError, match="several processes"):
        AcceleratorConfig(split_batches=True).check_processes(2)
