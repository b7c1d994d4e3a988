package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Names in a bundle's folder.
const (
	recordFile   = "record.json"
	envelopeFile = "record.dsse.json"
)

// timeForm is the time in a folder's name: UTC, sorts as text.
const timeForm = "20060102T150405.000Z"

// maxFile bounds what is read of any file of a bundle.
const maxFile = 64 << 20

var (
	// ErrTampered says that a bundle is not what it was when it was written.
	ErrTampered = errors.New("evidence was changed after it was written")
	// ErrMissing says that a bundle, or a file of it, is not there.
	ErrMissing = errors.New("evidence is missing")
	// ErrExists says that the ledger has this bundle already.
	ErrExists = errors.New("evidence is there already")
	// ErrName says that a name cannot be a folder.
	ErrName = errors.New("not usable as a name")
)

// Bundle is a verified run.
type Bundle struct {
	Record  Record
	Dir     string            // where it lies
	Name    string            // the last element of Dir
	Digest  string            // SHA-256 of record.json, in hex
	Outputs map[string][]byte // by file name
}

// nameForm is what contracts and falsifiers may be called: they become folders.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// checkName keeps names from leading out of the ledger.
func checkName(kind, name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%s %q: %w: want letters, digits, dot, dash and underscore", kind, name, ErrName)
	}
	return nil
}

// Hash is the SHA-256 of some bytes in hex.
func Hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Append writes a run into the ledger below root and returns its folder. The
// folder appears whole or not at all, and is never overwritten. outputs holds
// the streams by the file names that the record's steps give.
func Append(root string, r Record, outputs map[string][]byte) (dir string, err error) {
	if err := errors.Join(checkName("contract", r.Contract.Name), checkName("falsifier", r.Falsifier)); err != nil {
		return "", err
	}
	r.Schema = Schema
	r.Started, r.Ended = r.Started.UTC(), r.Ended.UTC()
	record, err := encode(r)
	if err != nil {
		return "", err
	}
	parent := filepath.Join(root, r.Contract.Name, r.Falsifier)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	dir = filepath.Join(parent, folderName(r, record))
	if _, err := os.Lstat(dir); err == nil {
		return "", fmt.Errorf("%s: %w", dir, ErrExists)
	}
	temp, err := os.MkdirTemp(parent, ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	// A temporary folder is private, evidence is for everyone.
	if err := os.Chmod(temp, 0o755); err != nil {
		return "", err
	}
	for _, s := range r.Steps {
		for _, o := range []Output{s.Stdout, s.Stderr} {
			data := outputs[o.File]
			if err := checkName("output", o.File); err != nil {
				return "", err
			}
			if Hash(data) != o.SHA256 || int64(len(data)) != o.Bytes {
				return "", fmt.Errorf("output %s is not what the record says", o.File)
			}
			if err := os.WriteFile(filepath.Join(temp, o.File), data, 0o644); err != nil {
				return "", err
			}
		}
	}
	if err := os.WriteFile(filepath.Join(temp, recordFile), record, 0o644); err != nil {
		return "", err
	}
	if err := os.Rename(temp, dir); err != nil {
		return "", err
	}
	return dir, nil
}

// Import copies a verified bundle into the ledger below root, with its signature if
// it has one, and returns its folder: the same name, since the content is the same.
// A bundle that is there already is ErrExists.
func Import(root string, b *Bundle) (dir string, err error) {
	envelope, err := read(b.Dir, envelopeFile)
	if err != nil && !errors.Is(err, ErrMissing) {
		return "", err
	}
	dir, err = Append(root, b.Record, b.Outputs)
	if err != nil || envelope == nil {
		return dir, err
	}
	return dir, os.WriteFile(filepath.Join(dir, envelopeFile), envelope, 0o644)
}

// encode gives a record its one form. Open compares with it, so that no two texts
// stand for one record.
func encode(r Record) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(r)
	return b.Bytes(), err
}

// folderName is a bundle's address: when it ended, for reading in order, and its
// content. Twelve hex digits tell runs apart; the full hash is in Digest.
func folderName(r Record, record []byte) string {
	return r.Ended.Format(timeForm) + "-" + Hash(record)[:12]
}

// Open reads a bundle and verifies it: the record against the folder's name,
// every output against the record, the folder against its place in the ledger,
// and that nothing else lies there.
func Open(dir string) (*Bundle, error) {
	record, err := read(dir, recordFile)
	if err != nil {
		return nil, err
	}
	parent := filepath.Dir(dir)
	r, err := decode(record, filepath.Base(filepath.Dir(parent)), filepath.Base(parent), filepath.Base(dir))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", dir, ErrTampered, err)
	}
	b := &Bundle{Record: r, Dir: dir, Name: filepath.Base(dir), Digest: Hash(record), Outputs: map[string][]byte{}}
	known := []string{recordFile, envelopeFile}
	for _, s := range r.Steps {
		for _, o := range []Output{s.Stdout, s.Stderr} {
			data, err := read(dir, o.File)
			if err != nil {
				return nil, err
			}
			if int64(len(data)) != o.Bytes || Hash(data) != o.SHA256 {
				return nil, fmt.Errorf("%s: %w: %s is not what was recorded", dir, ErrTampered, o.File)
			}
			b.Outputs[o.File] = data
			known = append(known, o.File)
		}
	}
	return b, noStrangers(dir, known)
}

// decode reads a record that lies in the folder contract/falsifier/name.
func decode(record []byte, contract, falsifier, name string) (r Record, err error) {
	dec := json.NewDecoder(bytes.NewReader(record))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return r, fmt.Errorf("%s: %w", recordFile, err)
	}
	if r.Schema != Schema {
		return r, fmt.Errorf("%s has schema %q, want %q", recordFile, r.Schema, Schema)
	}
	// Numbers and times have one form, so a record has one encoding.
	if again, err := encode(r); err != nil || !bytes.Equal(again, record) {
		return r, fmt.Errorf("%s is not in the form that it was written in", recordFile)
	}
	if want := folderName(r, record); name != want {
		return r, fmt.Errorf("the folder would be named %s by its content", want)
	}
	if contract != r.Contract.Name || falsifier != r.Falsifier {
		return r, fmt.Errorf("it is about %s of %s but lies elsewhere", r.Falsifier, r.Contract.Name)
	}
	for _, s := range r.Steps {
		if err := errors.Join(checkName("output", s.Stdout.File), checkName("output", s.Stderr.File)); err != nil {
			return r, err
		}
	}
	return r, nil
}

// noStrangers fails if a folder holds more than the known files.
func noStrangers(dir string, known []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(known, e.Name()) {
			return fmt.Errorf("%s: %w: %s does not belong to it", dir, ErrTampered, e.Name())
		}
	}
	return nil
}

// read reads a regular file of a bundle; a link could point anywhere.
func read(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrMissing)
	} else if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: not a regular file", path, ErrTampered)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: %w: larger than %d bytes", path, ErrTampered, maxFile)
	}
	return data, err
}

// Entry is a bundle of a ledger or the reason why it cannot be read.
type Entry struct {
	Name   string
	Dir    string
	Bundle *Bundle
	Err    error
}

// List reads the bundles of a falsifier below root, oldest first. A falsifier
// without a folder has none.
func List(root, contract, falsifier string) ([]Entry, error) {
	if checkName("contract", contract) != nil || checkName("falsifier", falsifier) != nil {
		return nil, nil // nothing can be filed under such a name
	}
	parent := filepath.Join(root, contract, falsifier)
	dirs, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, d := range dirs {
		if strings.HasPrefix(d.Name(), ".new-") {
			continue // a run that was interrupted while writing
		}
		dir := filepath.Join(parent, d.Name())
		b, err := Open(dir)
		if err != nil {
			b = nil
		}
		entries = append(entries, Entry{d.Name(), dir, b, err})
	}
	return entries, nil
}
