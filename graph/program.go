// Package graph describes a forward pass as data: typed operations in execution
// order over named values. A program knows neither the architecture it came
// from nor the backend that will run it.
package graph

// Value is an intermediate result: one row of Width float32 numbers for each
// token of the step, shape (T, Width).
type Value struct {
	// Name is stable across backends, so that two executors can be compared
	// value by value: "blk.7.attn_q", "blk.7.ffn_out", "output".
	Name  string
	Width int
}

// ID refers to a value of a program by its index in Program.Values.
type ID int

// Program is one forward pass over T tokens that extend one or more sequences.
type Program struct {
	Arch   string
	Values []Value
	Ops    []Op
	// Caches has one entry per layer that attends.
	Caches []Cache
	// Vocab is the width of the logits and the number of valid token ids.
	Vocab int
	// Hidden is the width of the residual stream.
	Hidden int
	// Context is the longest sequence the model was trained for, in tokens.
	Context int
}

// Cache is the shape of one layer's key/value cache: Heads × positions × HeadDim,
// for keys and for values.
type Cache struct {
	Heads   int
	HeadDim int
	// Window limits attention to the last Window positions; 0 means no limit.
	Window int
}

// Op is one operation. The concrete types below are the whole instruction set
// of models; a backend that meets another one must refuse the program.
type Op interface {
	// Inputs lists the values read, Output the value written (-1 if none).
	Inputs() []ID
	Output() ID
	// Weights lists the names of the tensors read.
	Weights() []string
	// Kind is the operation's name in traces and error messages.
	Kind() string
}

// Embed looks up one row of Weight (Vocab, Width) for each token.
type Embed struct {
	Out    ID
	Weight string
}

// RMSNorm normalises segments of the row to unit root mean square and multiplies
// by Weight: y = x / sqrt(mean(x²) + Eps) · w (Zhang & Sennrich 2019, eq. 4).
// The segment is the length of Weight: the whole row for a layer norm, one head
// for the query and key norms of Qwen3.
type RMSNorm struct {
	In, Out ID
	Weight  string
	Segment int
	Eps     float32
}

// MatMul computes y = W·x (+ Bias), with W (Out.Width, In.Width).
type MatMul struct {
	In, Out ID
	Weight  string
	Bias    string // empty for none; F32 (Out.Width)
}

// Pairing says which elements of a head RoPE rotates together.
type Pairing int

const (
	// Halves pairs element i with i + n/2 (GPT-NeoX, Qwen; Hugging Face's rotate_half).
	Halves Pairing = iota
	// Interleaved pairs element 2i with 2i+1 (the RoPE paper; llama in GGUF).
	Interleaved
)

// Rope rotates the first 2·len(InvFreq) elements of each head by
// position · InvFreq (Su et al. 2021). Frequency scaling (linear, YaRN, llama3)
// is already part of InvFreq; Magnitude multiplies the rotated elements
// (YaRN's attention factor; 1 otherwise).
type Rope struct {
	In, Out   ID
	HeadDim   int
	Pairing   Pairing
	InvFreq   []float64 // radians per position
	Magnitude float64
}

// KVStore appends K and V (T, Heads·HeadDim) to the cache of Layer.
type KVStore struct {
	K, V  ID
	Layer int // index into Program.Caches
}

// Attention is causal grouped-query attention over the cache of Layer:
// softmax(softcap(Scale · q·kᵀ)) · v. Query head h reads key/value head
// h / (Heads / KV heads).
type Attention struct {
	Q, Out  ID
	Layer   int
	Heads   int
	Scale   float32
	SoftCap float32 // c·tanh(s/c); 0 for none
}

// Activation is the non-linearity of a gated feed-forward network.
type Activation int

const (
	// SiLU is x·sigmoid(x).
	SiLU Activation = iota
	// GELU is the tanh approximation (Hendrycks & Gimpel 2016).
	GELU
)

// GatedAct computes act(Gate) · Up, element by element (Shazeer 2020).
type GatedAct struct {
	Gate, Up, Out ID
	Act           Activation
}

// Add computes A + B.
type Add struct{ A, B, Out ID }

// Scale computes Factor · In.
type Scale struct {
	In, Out ID
	Factor  float32
}

// Logits computes W·x for the rows that the caller asked logits for, with W
// (Vocab, In.Width).
type Logits struct {
	In, Out ID
	Weight  string
	SoftCap float32 // c·tanh(l/c); 0 for none
}

func (o *Embed) Inputs() []ID     { return nil }
func (o *RMSNorm) Inputs() []ID   { return []ID{o.In} }
func (o *MatMul) Inputs() []ID    { return []ID{o.In} }
func (o *Rope) Inputs() []ID      { return []ID{o.In} }
func (o *KVStore) Inputs() []ID   { return []ID{o.K, o.V} }
func (o *Attention) Inputs() []ID { return []ID{o.Q} }
func (o *GatedAct) Inputs() []ID  { return []ID{o.Gate, o.Up} }
func (o *Add) Inputs() []ID       { return []ID{o.A, o.B} }
func (o *Scale) Inputs() []ID     { return []ID{o.In} }
func (o *Logits) Inputs() []ID    { return []ID{o.In} }

func (o *Embed) Output() ID     { return o.Out }
func (o *RMSNorm) Output() ID   { return o.Out }
func (o *MatMul) Output() ID    { return o.Out }
func (o *Rope) Output() ID      { return o.Out }
func (o *KVStore) Output() ID   { return -1 }
func (o *Attention) Output() ID { return o.Out }
func (o *GatedAct) Output() ID  { return o.Out }
func (o *Add) Output() ID       { return o.Out }
func (o *Scale) Output() ID     { return o.Out }
func (o *Logits) Output() ID    { return o.Out }

func (o *Embed) Weights() []string   { return []string{o.Weight} }
func (o *RMSNorm) Weights() []string { return []string{o.Weight} }
func (o *MatMul) Weights() []string {
	if o.Bias == "" {
		return []string{o.Weight}
	}
	return []string{o.Weight, o.Bias}
}
func (o *Rope) Weights() []string      { return nil }
func (o *KVStore) Weights() []string   { return nil }
func (o *Attention) Weights() []string { return nil }
func (o *GatedAct) Weights() []string  { return nil }
func (o *Add) Weights() []string       { return nil }
func (o *Scale) Weights() []string     { return nil }
func (o *Logits) Weights() []string    { return []string{o.Weight} }

func (o *Embed) Kind() string     { return "embed" }
func (o *RMSNorm) Kind() string   { return "rmsnorm" }
func (o *MatMul) Kind() string    { return "matmul" }
func (o *Rope) Kind() string      { return "rope" }
func (o *KVStore) Kind() string   { return "kv-store" }
func (o *Attention) Kind() string { return "attention" }
func (o *GatedAct) Kind() string  { return "gated-act" }
func (o *Add) Kind() string       { return "add" }
func (o *Scale) Kind() string     { return "scale" }
func (o *Logits) Kind() string    { return "logits" }
