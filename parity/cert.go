package parity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Key is everything that could change a verdict. A certificate holds for one
// key; the name of its file is made of all parts.
type Key struct {
	Model     string `json:"model"`     // hash of the file's content
	Program   string `json:"program"`   // hash of the operations
	Build     string `json:"build"`     // of this executable
	Backend   string `json:"backend"`   // registry name
	Identity  string `json:"identity"`  // device, driver and kernels
	Reference string `json:"reference"` // name and identity
	Policy    string `json:"policy"`    // hash of the thresholds
	Options   string `json:"options"`   // of the executor that change results
}

// name is the certificate's file name.
func (k Key) name() string {
	data, err := json.Marshal(k)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16]) + certSuffix
}

// complete reports whether no part is missing: an unknown part matches nothing.
func (k Key) complete() bool {
	return !slices.Contains([]string{k.Model, k.Program, k.Build, k.Backend, k.Identity, k.Reference, k.Policy, k.Options}, "")
}

// Certificate is a remembered verdict.
type Certificate struct {
	Format    int        `json:"format"`
	Key       Key        `json:"key"`
	Status    Status     `json:"status"`
	Reason    string     `json:"reason,omitempty"`
	Violation *Violation `json:"violation,omitempty"`
	Covered   []string   `json:"covered"`
	Context   int        `json:"context"` // tokens that a judged sequence held at most
	Positions int        `json:"positions"`
	MinCosine float64    `json:"min_cosine"`
	MaxKL     float64    `json:"max_kl"`
	Device    string     `json:"device"`
	Part      string     `json:"part,omitempty"` // of the model on the device; empty for all
	File      string     `json:"file"`           // the model's base name, for people
	Created   time.Time  `json:"created"`
	Sum       string     `json:"sum"` // SHA-256 of the rest
}

const (
	certFormat = 2
	certSuffix = ".cert.json"
	// maxCertBytes bounds what is read: certificates are a few kilobytes.
	maxCertBytes = 1 << 20
	// clockSlack is how far clocks may differ before a certificate is from the future.
	clockSlack = 5 * time.Minute
)

// sum is the hash of everything but Sum.
func (c Certificate) sum() string {
	c.Sum = ""
	data, err := json.Marshal(c)
	if err != nil {
		return ""
	}
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// Verdict returns what the certificate says as a verdict.
func (c Certificate) Verdict() Verdict {
	return Verdict{
		Status: c.Status, Reason: c.Reason, Violation: c.Violation, Backend: c.Key.Backend, Device: c.Device, Part: c.Part,
		Covered: c.Covered, Context: c.Context, Cached: true,
		Hashes: Hashes{Model: c.Key.Model, Program: c.Key.Program, Policy: c.Key.Policy, Build: c.Key.Build},
	}
}

// Store keeps certificates in a directory. It never fails a run: what cannot be
// read counts as absent, what cannot be written is dropped, and either is
// reported through Warn. A nil Store is empty and keeps nothing.
type Store struct {
	Dir  string
	Warn func(problem string)
}

// DefaultDir is where certificates are kept: APR_CERT_DIR, or the user's cache
// directory.
func DefaultDir() (string, error) {
	if dir := os.Getenv("APR_CERT_DIR"); dir != "" {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory (set APR_CERT_DIR): %w", err)
	}
	return filepath.Join(cache, "apr", "certs"), nil
}

func (s *Store) warn(format string, args ...any) {
	if s.Warn != nil {
		s.Warn(fmt.Sprintf(format, args...))
	}
}

// Get finds the certificate for a key.
func (s *Store) Get(k Key) (Certificate, bool) {
	if s == nil || s.Dir == "" || !k.complete() {
		return Certificate{}, false
	}
	path := filepath.Join(s.Dir, k.name())
	c, err := readCertificate(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Certificate{}, false
	case err == nil && c.Key != k:
		err = errors.New("it is about something else")
	}
	if err != nil {
		s.warn("certificate %s is ignored: %v", path, err)
		return Certificate{}, false
	}
	return c, true
}

// readCertificate refuses everything but an intact certificate of this format.
func readCertificate(path string) (Certificate, error) {
	f, err := os.Open(path)
	if err != nil {
		return Certificate{}, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return Certificate{}, errors.New("not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCertBytes+1))
	if err != nil {
		return Certificate{}, err
	}
	var c Certificate
	if len(data) > maxCertBytes {
		return c, errors.New("too large")
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return Certificate{}, fmt.Errorf("not a certificate: %w", err)
	}
	switch {
	case c.Format != certFormat:
		err = fmt.Errorf("format %d, want %d", c.Format, certFormat)
	case c.Sum == "" || c.Sum != c.sum():
		err = errors.New("its checksum is wrong")
	case c.Created.After(time.Now().Add(clockSlack)):
		err = fmt.Errorf("it is from the future (%s)", c.Created.Format(time.RFC3339))
	case c.Status != Validated && c.Status != Mismatch:
		err = fmt.Errorf("status %q", c.Status)
	case c.Status == Validated && (len(c.Covered) == 0 || c.Context <= 0):
		err = errors.New("it covers nothing")
	}
	return c, err
}

// Put remembers a certificate, in place of one with the same key. The file
// appears whole or not at all, whoever else writes it.
func (s *Store) Put(c Certificate) {
	if s == nil || s.Dir == "" || !c.Key.complete() {
		return
	}
	c.Format, c.Created = certFormat, time.Now().UTC().Truncate(time.Second)
	c.Sum = c.sum()
	data, err := json.MarshalIndent(c, "", "  ")
	if err == nil {
		err = writeAtomic(s.Dir, c.Key.name(), append(data, '\n'))
	}
	if err == nil {
		return
	}
	s.warn("certificate is not kept: %v", err)
	// An older verdict under the same key must not outlive this one.
	if c.Status != Validated {
		_ = os.Remove(filepath.Join(s.Dir, c.Key.name()))
	}
}

// writeAtomic writes a file beside its place and renames it.
func writeAtomic(dir, name string, data []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// List returns the intact certificates, newest first, and how many files could
// not be read as one.
func (s *Store) List() (list []Certificate, broken int, err error) {
	if s == nil || s.Dir == "" {
		return nil, 0, nil
	}
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), certSuffix) {
			continue
		}
		c, err := readCertificate(filepath.Join(s.Dir, e.Name()))
		if err != nil {
			broken++
			continue
		}
		list = append(list, c)
	}
	slices.SortStableFunc(list, func(a, b Certificate) int { return b.Created.Compare(a.Created) })
	return list, broken, nil
}

// ID is a certificate's short name, the start of its file name.
func (c Certificate) ID() string { return strings.TrimSuffix(c.Key.name(), certSuffix)[:12] }

// Clear removes every certificate, every trial and every remembered file hash.
func (s *Store) Clear() (removed int, err error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		cert := strings.HasSuffix(e.Name(), certSuffix)
		if !cert && !strings.HasSuffix(e.Name(), hashSuffix) && !strings.HasSuffix(e.Name(), trialSuffix) && !strings.HasPrefix(e.Name(), ".new-") {
			continue
		}
		if err := os.Remove(filepath.Join(s.Dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		if cert {
			removed++
		}
	}
	return removed, nil
}
