"""Files of the benchmark's published column layouts, and the examples that they hold. For tests.

Sentences are made up. Each file has something that an ordinary CSV reader stumbles over.
"""

INFERENCE = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
INFERENCE += "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\t"
PARSES = "( a )\t( b )\t(ROOT (a))\t(ROOT (b))\t"
SIMILARITY = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
PLACE = "main-news\theadlines\t2015\t0041\tnone\tnone\t"

FILES = {
    # No header; the last line has no newline.
    "CoLA/train.tsv": 'gj04\t1\t\tA "quote is open.\nbc01\t0\t*\tBook the red.',
    "CoLA/dev.tsv": "r-67\t1\t\tIt is here.\n",
    "CoLA/test.tsv": "index\tsentence\n0\tIs it here?\n1\tHere it is.\n",
    "SST-2/train.tsv": 'sentence\tlabel\na " fine film \t1\ndull\u2028and long \t0\n',
    "SST-2/dev.tsv": "sentence\tlabel\nit works . \t1\n",
    "SST-2/test.tsv": "index\tsentence\n0\tnever dull\n",
    # A byte-order mark and the line ends of Windows.
    "MRPC/train.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    '1\t10\t11\tHe said " yes .\tYes , " he said .\r\n0\t12\t13\tIt rose .\tIt fell .\r\n',
    "MRPC/dev.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tOne .\tOne .\n",
    "MRPC/test.tsv": "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t5\t6\tTwo .\tThree .\n",
    "STS-B/train.tsv": f"{SIMILARITY}\tscore\n0\t{PLACE}A plane.\tAn air plane.\t5.000\n"
    f"1\t{PLACE}A man.\tA dog.\t2.500\n2\t{PLACE}A.\tB.\t0.100\n",
    "STS-B/dev.tsv": f"{SIMILARITY}\tscore\n0\t{PLACE}Two.\tThree.\t3.3\n",
    "STS-B/test.tsv": f"{SIMILARITY}\n0\t{PLACE}Four.\tFive.\n",
    # The second row lacks columns, the third its label: the published file has such rows.
    "QQP/train.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    "7\t1\t2\tWho?\tWhom?\t1\n8\t3\t4\tcut off\n9\t5\t6\tA?\tB?\t\n10\t7\t8\tWhy?\tHow?\t0\n",
    "QQP/dev.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n7\t1\t2\t\tWhat?\t0\n",
    "QQP/test.tsv": "id\tquestion1\tquestion2\n0\tWhen?\tWhere?\n",
    "MNLI/train.tsv": f"{INFERENCE}label1\tgold_label\n"
    f"0\t31\t31n\tfiction\t{PARSES}It rains.\tIt is wet.\tneutral\tneutral\n",
    "MNLI/dev_matched.tsv": f"{INFERENCE}label1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
    f"0\t63\t63e\ttravel\t{PARSES}P.\tH." + "\tentailment" * 6 + "\n",
    "MNLI/dev_mismatched.tsv": f"{INFERENCE}label1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
    f"0\t75\t75c\tletters\t{PARSES}Q.\tI.\tneutral" + "\tcontradiction" * 5 + "\n",
    "MNLI/test_matched.tsv": f"{INFERENCE.strip()}\n0\t9\t9e\ttravel\t{PARSES}R.\tJ.\n",
    "MNLI/test_mismatched.tsv": f"{INFERENCE.strip()}\n0\t8\t8e\tletters\t{PARSES}S.\tK.\n",
    "diagnostic/diagnostic.tsv": "index\tsentence1\tsentence2\n0\tCats sit.\tA cat sits.\n",
    "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n"
    "0\tWhen?\tIn 1900.\tentailment\n1\tWho?\tIn 1900.\tnot_entailment\n",
    "QNLI/dev.tsv": "index\tquestion\tsentence\tlabel\n0\tHow?\tSo.\tnot_entailment\n",
    "QNLI/test.tsv": "index\tquestion\tsentence\n0\tWhy?\tBecause.\n",
    "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA and B.\tA.\tentailment\n",
    "RTE/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA or B.\tA.\tnot_entailment\n",
    "RTE/test.tsv": "index\tsentence1\tsentence2\n0\tA.\tB.\n",
    "WNLI/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tIt broke.\tThe cup broke.\t1\n",
    "WNLI/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tIt broke.\tThe sky broke.\t0\n",
    "WNLI/test.tsv": "index\tsentence1\tsentence2\n0\tIt broke.\tThe box broke.\n",
}

EXAMPLES = {
    ("cola", "train"): [
        ('cola sentence: A "quote is open.', "acceptable"),
        ("cola sentence: Book the red.", "unacceptable"),
    ],
    ("cola", "validation"): [("cola sentence: It is here.", "acceptable")],
    ("cola", "test"): [
        ("cola sentence: Is it here?", "<unk>"),
        ("cola sentence: Here it is.", "<unk>"),
    ],
    ("sst2", "train"): [
        ('sst2 sentence: a " fine film ', "positive"),
        ("sst2 sentence: dull\u2028and long ", "negative"),
    ],
    ("sst2", "validation"): [("sst2 sentence: it works . ", "positive")],
    ("sst2", "test"): [("sst2 sentence: never dull", "<unk>")],
    ("mrpc", "train"): [
        ('mrpc sentence1: He said " yes . sentence2: Yes , " he said .', "equivalent"),
        ("mrpc sentence1: It rose . sentence2: It fell .", "not_equivalent"),
    ],
    ("mrpc", "validation"): [("mrpc sentence1: One . sentence2: One .", "equivalent")],
    ("mrpc", "test"): [("mrpc sentence1: Two . sentence2: Three .", "<unk>")],
    ("stsb", "train"): [
        ("stsb sentence1: A plane. sentence2: An air plane.", "5.0"),
        ("stsb sentence1: A man. sentence2: A dog.", "2.4"),
        ("stsb sentence1: A. sentence2: B.", "0.0"),
    ],
    ("stsb", "validation"): [("stsb sentence1: Two. sentence2: Three.", "3.2")],
    ("stsb", "test"): [("stsb sentence1: Four. sentence2: Five.", "<unk>")],
    ("qqp", "train"): [
        ("qqp question1: Who? question2: Whom?", "duplicate"),
        ("qqp question1: Why? question2: How?", "not_duplicate"),
    ],
    ("qqp", "validation"): [("qqp question1:  question2: What?", "not_duplicate")],
    ("qqp", "test"): [("qqp question1: When? question2: Where?", "<unk>")],
    ("mnli", "train"): [("mnli hypothesis: It is wet. premise: It rains.", "neutral")],
    ("mnli", "validation_matched"): [("mnli hypothesis: H. premise: P.", "entailment")],
    ("mnli", "validation_mismatched"): [("mnli hypothesis: I. premise: Q.", "contradiction")],
    ("mnli", "test_matched"): [("mnli hypothesis: J. premise: R.", "<unk>")],
    ("mnli", "test_mismatched"): [("mnli hypothesis: K. premise: S.", "<unk>")],
    ("mnli", "test_diagnostic"): [("mnli hypothesis: A cat sits. premise: Cats sit.", "<unk>")],
    ("qnli", "train"): [
        ("qnli question: When? sentence: In 1900.", "entailment"),
        ("qnli question: Who? sentence: In 1900.", "not_entailment"),
    ],
    ("qnli", "validation"): [("qnli question: How? sentence: So.", "not_entailment")],
    ("qnli", "test"): [("qnli question: Why? sentence: Because.", "<unk>")],
    ("rte", "train"): [("rte sentence1: A and B. sentence2: A.", "entailment")],
    ("rte", "validation"): [("rte sentence1: A or B. sentence2: A.", "not_entailment")],
    ("rte", "test"): [("rte sentence1: A. sentence2: B.", "<unk>")],
    ("wnli", "train"): [("wnli sentence1: It broke. sentence2: The cup broke.", "entailment")],
    ("wnli", "validation"): [
        ("wnli sentence1: It broke. sentence2: The sky broke.", "not_entailment")
    ],
    ("wnli", "test"): [("wnli sentence1: It broke. sentence2: The box broke.", "<unk>")],
}


def write(folder, names=FILES):
    """Writes some of the files."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name].encode("utf-8"))
    return folder
