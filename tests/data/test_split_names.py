import pytest

from ssl_swin.data.split_names import read_split_names, split_in_name, split_of_name, words_of


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("imagenet1k-validation-00.tar", "val"),
        ("ILSVRC2012_img_VAL", "val"),
        ("data/train-00000-of-00041.parquet", "train"),
        ("test/train.parquet", "test"),  # the first word that is a split
        ("set-dev-000.tar", "val"),
        ("Testing-000.tar", "test"),
        ("n01440764", None),
        ("trainer-0.tar", None),  # a whole word
        ("", None),
    ],
)
def test_split_in_name(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train_images", ("train", "images")),
        ("TrainImages", ("train", "images")),
        ("DIV2K_train_HR", ("div", "2", "k", "train", "hr")),
        ("trainannot", ("train", "annot")),
        ("imagesTr", ("images", "train")),
        ("labelsTs", ("labels", "test")),
        ("str", ("str",)),
        ("", ()),
    ],
)
def test_words_of(name: str, words: tuple[str, ...]) -> None:
    assert words_of(name) == words


@pytest.mark.parametrize(
    "name",
    "train TRAIN Training train2017 train_1 trainA X_train trainval TrainImages images-train "
    "training_set imagesTr train(1)".split(),
)
def test_split_of_name__train(name: str) -> None:
    assert split_of_name(name) == "train"


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("val", "val valid Validation VAL2017 val_images dev eval Evaluation hold-out Val200"),
        ("test", "test Testing TEST test2017 test-set TestSet PublicTest test_512px imagesTs tst"),
    ],
)
def test_split_of_name__evaluation(split: str, names: str) -> None:
    assert {split_of_name(name) for name in names.split()} == {split}


@pytest.mark.parametrize(
    "name",
    ["bullet train", "test_tube", "trainer", "validity", "contest", "train_test", "cat", "2017"],
)
def test_split_of_name__mentions_at_most(name: str) -> None:
    assert split_of_name(name) is None


def test_split_of_name__words_that_all_have() -> None:
    assert split_of_name("asl_alphabet_test") is None
    assert split_of_name("asl_alphabet_test", shared={"asl", "alphabet"}) == "test"


@pytest.mark.parametrize(
    ("names", "splits", "mixed"),
    [
        (["Testing", "Training"], {"Testing": "test", "Training": "train"}, []),
        (["seg_test", "seg_train"], {"seg_test": "test", "seg_train": "train"}, []),
        (["seg_pred", "seg_test", "seg_train"], {}, ["seg_test", "seg_train"]),
        (["dog", "train"], {}, ["train"]),
        (["dogs_train", "dogs_test", "cats"], {}, ["dogs_train", "dogs_test"]),
        (["cats_test", "dogs_test"], {}, ["cats_test", "dogs_test"]),  # all for evaluation
        (["bullet train", "bus"], {}, []),
        (["steam train", "bullet train"], {}, []),
        (["test tube", "beaker"], {}, []),
        (["cat", "dog"], {}, []),
        ([], {}, []),
    ],
)
def test_read_split_names(names: list[str], splits: dict[str, str], mixed: list[str]) -> None:
    found = read_split_names(names)
    assert (dict(found.splits), list(found.mixed)) == (splits, mixed)
