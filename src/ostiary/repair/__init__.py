"""Repairs: a new model from a suspicious one; one file per method, one line here."""

METHODS = {
    "repair.anp": "ostiary.repair.anp:Anp",
    "repair.clp": "ostiary.repair.clp:Clp",
    "repair.fine-pruning": "ostiary.repair.fine_pruning:FinePruning",
    "repair.fine-tuning": "ostiary.repair.fine_tuning:FineTuning",
    "repair.fst": "ostiary.repair.fst:Fst",
    "repair.ft-sam": "ostiary.repair.ft_sam:FtSam",
    "repair.i-bau": "ostiary.repair.i_bau:IBau",
    "repair.mm-bm": "ostiary.repair.mm_bm:MmBm",
    "repair.nad": "ostiary.repair.nad:Nad",
    "repair.rnp": "ostiary.repair.rnp:Rnp",
    "repair.trigger-unlearning": "ostiary.repair.trigger_unlearning:TriggerUnlearning",
    "text.repair.crow": "ostiary.repair.crow:Crow",
    "text.repair.fine-mixing": "ostiary.repair.fine_mixing:FineMixing",
    "text.repair.fine-tuning": "ostiary.repair.text_fine_tuning:TextFineTuning",
    "text.repair.phrase-unlearning": "ostiary.repair.phrase_unlearning:PhraseUnlearning",
    "text.repair.token-pruning": "ostiary.repair.token_pruning:TokenPruning",
    "text.repair.w2s": "ostiary.repair.w2s:W2s",
}
