package check

// Kinds of findings.
const (
	KindStructure  = "structure"
	KindExtent     = "extent"
	KindOverlap    = "overlap"
	KindDuplicate  = "duplicate-name"
	KindType       = "type"
	KindTrailing   = "trailing-bytes"
	KindChecksum   = "checksum"
	KindNotFinite  = "not-finite"
	KindZeroTensor = "zero-tensor"
	KindDeadRows   = "dead-rows"
	KindSameBytes  = "same-bytes"
	KindIncomplete = "incomplete"
	KindShape      = "shape"
	KindUnused     = "unused-tensor"
	KindConfig     = "config"
	KindVocabulary = "vocabulary"
	KindTokenizer  = "tokenizer"
	KindUnusual    = "unusual"
)

// Kind explains a kind of findings.
type Kind struct {
	Name, Meaning, Advice string
}

// Kinds lists every kind, in the order of the checks.
var Kinds = []Kind{
	{KindStructure, "the file breaks the rules of its format at the place given", "get the file again; if that does not help, the program that wrote it is at fault"},
	{KindExtent, "a tensor's bytes go past the end of the file", "the file is cut off, usually by a download that broke: get it again"},
	{KindOverlap, "two tensors claim the same bytes", "the file's index is damaged: get it again"},
	{KindDuplicate, "two tensors have the same name", "the program that wrote the file is at fault"},
	{KindType, "a tensor's type is unknown, or does not go with its shape", "a newer program may know the type; convert the model again"},
	{KindTrailing, "there are bytes after the last tensor", "often two files joined, or a shortened index: compare with the source"},
	{KindChecksum, "the bytes do not give the checksum that the file holds", "the file has changed since it was written: get it again"},
	{KindNotFinite, "a tensor holds NaN or infinity, as a number or as the scale of a block", "the model would answer nonsense: get the file again, or convert it again"},
	{KindZeroTensor, "every number of a tensor is zero", "weights are never all zero: the bytes are missing or were overwritten"},
	{KindDeadRows, "rows of a matrix are all zeros", "rows of unused tokens may be; others are a sign of damage or of pruning"},
	{KindSameBytes, "two tensors have the same content", "harmless for output.weight and token_embd.weight (tied embeddings stored twice); otherwise a conversion may have copied the wrong one"},
	{KindIncomplete, "a tensor that the architecture needs is missing", "a shard may be missing, or the conversion left it out"},
	{KindShape, "a tensor has another shape than the metadata ask for", "metadata and tensors come from different models: convert the model again"},
	{KindUnused, "a tensor that the architecture does not use", "harmless, but takes space; or the architecture is named wrongly"},
	{KindConfig, "metadata that the model needs are missing or contradictory, or the architecture is unknown", "see the key named; other programs may know the architecture"},
	{KindVocabulary, "the vocabulary and the embedding matrix have different lengths", "the tokenizer belongs to another model"},
	{KindUnusual, "something that the format allows or readers accept, but that is rare", "nothing, if the model runs"},
	{KindTokenizer, "the tokenizer cannot be built from the metadata", "token ids work (apr run --token-ids), text does not"},
}
