package modelfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/apr-engine/apr/format/apr"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/format/safetensors"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// The containers that Convert writes.
const (
	FormatGGUF        = "gguf"
	FormatApr         = "apr"
	FormatSafetensors = "safetensors"
)

// Formats lists them.
func Formats() []string { return []string{FormatGGUF, FormatApr, FormatSafetensors} }

// ErrTypes means that a container lacks the types of some tensors.
var ErrTypes = errors.New("the container lacks types of this model")

// Plan is what a conversion does, or would do.
type Plan struct {
	From       string          `json:"from"` // containers, such as "GGUF v3" and "apr"
	To         string          `json:"to"`
	Recipe     string          `json:"recipe,omitempty"` // empty if the types stay as they are
	BytesIn    int64           `json:"bytes_in"`         // of the source's files
	BytesOut   int64           `json:"bytes_out"`        // of tensor data to be written
	Parameters int64           `json:"parameters"`
	Tensors    []PlannedTensor `json:"tensors"`
	// Files are those of a folder, for a Hugging Face folder; empty for one file.
	Files    []string `json:"files,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// PlannedTensor is one tensor of the output.
type PlannedTensor struct {
	Name   string `json:"name"`   // in the output
	Source string `json:"source"` // its GGUF name
	From   string `json:"from"`   // types
	To     string `json:"to"`
	Shape  []int  `json:"shape"`
	Bytes  int64  `json:"bytes"` // in the output
}

// sink is a file in the making: the writers of all containers.
type sink interface {
	NextTensor() (io.Writer, error)
	Close() error
	Abort()
}

// job is a model and what is to become of it.
type job struct {
	*source
	types  []tensor.DType // beside items
	format string
	folder bool         // write a Hugging Face folder, not one file
	recipe quant.Recipe // zero to keep types
	opts   Options
	at     Progress
}

// Convert reads the model at in (a GGUF or .apr file, or a Hugging Face folder)
// and writes it to out in the container and with the types that opts asks for.
// FormatSafetensors makes a Hugging Face folder, or the weights alone if out ends
// in .safetensors; norms and biases are stored there in the type of the matrices if
// that loses nothing.
// Tensors that have the wanted type are copied; those that are quantised
// already are dequantised first, which adds the errors of both.
//
// Errors: quant.ErrRecipe, ErrTypes, ErrSameFile, fs.ErrExist for an output that
// exists without Force, fs.ErrNotExist and the ErrFormat of its container for
// the input, ErrConfig and ErrArch for a folder, quant.ErrNotFinite for a number
// that cannot be stored, and the context's when it ends. After an error nothing
// is left behind and an existing output is untouched.
func Convert(ctx context.Context, in, out string, opts Options) (*Plan, error) {
	j, err := prepare(in, out, opts)
	if err != nil {
		return nil, err
	}
	defer j.close()
	j.folder = j.format == FormatSafetensors && !isWeights(out)
	check := checkOutput
	if j.folder {
		check = checkFolder
	}
	if err := check(j.paths, out, opts.Force); err != nil {
		return nil, err
	}
	p, err := j.plan()
	if err != nil {
		return nil, fmt.Errorf("convert %s: %w", in, err)
	}
	w, err := j.create(out, p)
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	if err := j.write(ctx, w); err != nil {
		return nil, fmt.Errorf("convert %s: %w", in, err)
	}
	return p, w.Close()
}

// PlanConvert returns what Convert would do. It reads headers, and for a folder
// norms and biases, and writes nothing; the output may exist.
func PlanConvert(in, out string, opts Options) (*Plan, error) {
	j, err := prepare(in, out, opts)
	if err != nil {
		return nil, err
	}
	defer j.close()
	j.folder = j.format == FormatSafetensors && !isWeights(out)
	p, err := j.plan()
	if err == nil && j.folder {
		_, err = j.hfFiles()
	}
	if err != nil {
		return nil, fmt.Errorf("convert %s: %w", in, err)
	}
	return p, nil
}

// FormatOf is the container that a name asks for: a name that ends in a separator
// is a Hugging Face folder's.
func FormatOf(path string) string {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".apr":
		return FormatApr
	case ".safetensors":
		return FormatSafetensors
	}
	if path != "" && os.IsPathSeparator(path[len(path)-1]) {
		return FormatSafetensors
	}
	return FormatGGUF
}

// isWeights reports whether an output is a file of weights, not a folder.
func isWeights(path string) bool { return strings.EqualFold(filepath.Ext(path), ".safetensors") }

// prepare opens the source and checks the options.
func prepare(in, out string, opts Options) (*job, error) {
	j := &job{format: opts.Format, opts: opts}
	if j.format == "" {
		j.format = FormatOf(out)
	}
	if !slices.Contains(Formats(), j.format) {
		return nil, fmt.Errorf("unknown container %q, want one of %s", j.format, strings.Join(Formats(), ", "))
	}
	var err error
	if opts.Recipe != "" {
		if j.recipe, err = quant.FindRecipe(opts.Recipe); err != nil {
			return nil, err
		}
	}
	if j.opts.Threads <= 0 {
		j.opts.Threads = runtime.GOMAXPROCS(0)
	}
	if j.source, err = openSource(in); err != nil {
		return nil, err
	}
	if j.format == FormatSafetensors {
		if err := j.forTransformers(); err != nil {
			j.close()
			return nil, fmt.Errorf("convert %s: %w", in, err)
		}
	}
	return j, nil
}

// plan chooses every tensor's type and name.
func (j *job) plan() (*Plan, error) {
	if len(j.items) == 0 {
		return nil, fmt.Errorf("%w: it has no tensors", gguf.ErrFormat)
	}
	p := &Plan{From: j.source.format, To: j.format, Recipe: j.recipe.Name, BytesIn: j.size, Warnings: j.warnings}
	ref := describe(j.source)
	arch := ref.Arch
	var lacking []string
	for _, t := range j.items {
		to := t.Type
		if j.recipe.Name != "" {
			ref.Name, ref.Type, ref.Shape = t.Name, t.Type, t.Shape
			ref.Layer, _ = quant.LayerOf(t.Name)
			to = j.recipe.TypeFor(ref)
		}
		j.types = append(j.types, to)
	}
	if j.format == FormatSafetensors {
		j.narrowVectors()
	}
	for i, t := range j.items {
		to := j.types[i]
		if !j.holds(i) {
			lacking = append(lacking, t.Name+" "+to.String())
		}
		x := PlannedTensor{Name: t.Name, Source: t.Name, From: j.items[i].Type.String(), To: to.String(), Shape: t.Shape}
		if j.format != FormatGGUF {
			x.Name, _ = HFName(arch, t.Name)
		}
		size, err := tensor.Bytes(to, t.Shape)
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", t, err)
		}
		switch {
		case t.own != nil:
			x.From = t.own.Type.String()
		case t.stored != "":
			x.From = t.stored
		}
		if j.verbatim(i) {
			x.To, size = t.own.Type.String(), len(t.own.Data)
		}
		x.Bytes = int64(size)
		p.BytesOut += x.Bytes
		p.Parameters += int64(t.Elements())
		p.Tensors = append(p.Tensors, x)
	}
	j.at.Total, j.at.Count = p.Parameters, len(j.items)
	switch {
	case j.folder:
		p.Files = []string{configFile, generationFile, weightsFile, tokenizerFile, tokenizerSetup}
	case j.format == FormatSafetensors:
		p.Warnings = append(slices.Clone(p.Warnings), "weights alone are written; with a folder as the output there are also config.json and the tokenizer, which importing it needs")
	}
	if len(lacking) > 0 {
		return nil, j.lackingTypes(lacking)
	}
	return p, nil
}

// narrowVectors stores norms and biases, which GGUF has in F32, in the matrices'
// type where that loses nothing: so Hugging Face's own folders come back as they
// were.
func (j *job) narrowVectors() {
	main := j.mainType()
	if main != tensor.F16 && main != tensor.BF16 {
		return
	}
	for i := range j.items {
		if j.types[i] == tensor.F32 && j.items[i].fits(main) {
			j.types[i] = main
		}
	}
}

// verbatim reports whether tensor i is copied in a type that only .apr has.
func (j *job) verbatim(i int) bool {
	return j.format == FormatApr && j.items[i].own != nil && j.types[i] == j.items[i].Type
}

// holds reports whether the container has the type planned for tensor i.
func (j *job) holds(i int) bool {
	switch j.format {
	case FormatApr:
		return apr.Holds(j.types[i]) || j.verbatim(i)
	case FormatSafetensors:
		return safetensors.Holds(j.types[i])
	}
	return true
}

// lackingTypes is the error for types that the container does not have.
func (j *job) lackingTypes(list []string) error {
	const shown = 8
	more := ""
	if len(list) > shown {
		more = fmt.Sprintf(" and %d more", len(list)-shown)
	}
	have, flag := "F32, F16, BF16, Q4_K and Q6_K", "--quantize q4_k_m, q6_k or f16"
	if j.format == FormatSafetensors {
		have, flag = "F32, F16 and BF16", "--quantize f16, bf16 or f32"
	}
	what := "store them in another type with " + flag
	if j.recipe.Name != "" {
		what = fmt.Sprintf("the recipe %s gives them these types because of their rows' lengths: use another recipe or GGUF", j.recipe.Name)
	}
	return fmt.Errorf("%w: %s has %s, not the types of %d of %d tensors: %s%s; %s",
		ErrTypes, j.format, have, len(list), len(j.items), strings.Join(list[:min(shown, len(list))], ", "), more, what)
}

// create starts the output.
func (j *job) create(out string, p *Plan) (sink, error) {
	switch j.format {
	case FormatApr:
		return j.createApr(out, p)
	case FormatSafetensors:
		if j.folder {
			return j.createFolder(out, p)
		}
		return j.createSafetensors(out, p)
	}
	md, err := j.metadata()
	if err != nil {
		return nil, err
	}
	infos := make([]gguf.TensorInfo, len(j.items))
	for i, t := range j.items {
		infos[i] = gguf.TensorInfo{Name: t.Name, Type: j.types[i], Shape: slices.Clone(t.Shape)}
	}
	return gguf.Create(out, md, infos)
}

// quantizationVersion is general.quantization_version: the version of the block
// layouts. Source: GGML_QNT_VERSION in ggml.h.
const quantizationVersion = 2

// metadata is that of the output: the source's, as one file, with the types it has.
func (j *job) metadata() (*gguf.Metadata, error) {
	md := j.md.Clone()
	for _, key := range []string{"split.no", "split.count", "split.tensors.count"} {
		md.Delete(key)
	}
	_, has := md.Value("general.file_type")
	if j.recipe.Name == "" && has {
		return md, nil
	}
	if j.recipe.Name == "" {
		return md, md.Set("general.file_type", j.fileType())
	}
	return md, errors.Join(
		md.Set("general.file_type", j.recipe.FileType),
		md.Set("general.quantization_version", uint32(quantizationVersion)),
	)
}

// fileType is the number for the type that most elements have.
func (j *job) fileType() uint32 {
	best := j.mainType()
	for _, name := range quant.RecipeNames() {
		if r, err := quant.FindRecipe(name); err == nil && r.Base == best {
			return r.FileType
		}
	}
	return 0
}

// createApr starts an .apr file. A model whose output matrix is its embedding
// matrix gets an entry for both, which share their bytes: some readers ask for both.
func (j *job) createApr(out string, p *Plan) (sink, error) {
	md, err := j.metadata()
	if err != nil {
		return nil, err
	}
	infos := make([]apr.TensorInfo, 0, len(j.items)+1)
	var shared apr.TensorInfo
	for i, t := range j.items {
		kind := apr.Type(j.types[i])
		if j.verbatim(i) {
			kind = t.own.Type
		}
		infos = append(infos, apr.TensorInfo{Name: p.Tensors[i].Name, Type: kind, Shape: slices.Clone(t.Shape)})
		if j.tied && t.Name == "token_embd.weight" {
			shared = infos[i]
			shared.SameAs = shared.Name
			shared.Name, _ = HFName("", "output.weight")
		}
	}
	if shared.Name != "" {
		infos = append(infos, shared)
	}
	fields, err := aprFields(md, j.origin, p.Parameters, p.BytesOut, j.tied)
	if err != nil {
		return nil, err
	}
	return apr.Create(out, fields, infos)
}

// createSafetensors starts a file for transformers.
func (j *job) createSafetensors(out string, p *Plan) (sink, error) {
	arch, _ := j.md.String("general.architecture")
	infos := make([]safetensors.TensorInfo, len(j.items))
	for i, t := range j.items {
		if _, known := HFName(arch, t.Name); !known {
			return nil, fmt.Errorf("%w: tensor %s has no place in a Hugging Face model", ErrArch, t)
		}
		infos[i] = safetensors.TensorInfo{Name: p.Tensors[i].Name, Type: j.types[i], Shape: slices.Clone(t.Shape)}
	}
	return safetensors.Create(out, map[string]string{"format": "pt"}, infos)
}
