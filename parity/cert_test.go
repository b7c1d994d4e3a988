package parity_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/parity"
)

func key() parity.Key {
	return parity.Key{Model: "m", Program: "p", Build: "b", Backend: "gpu", Identity: "i", Reference: "r", Policy: "q", Options: "o"}
}

func pass(k parity.Key) parity.Certificate {
	return parity.Certificate{Key: k, Status: parity.Validated, Covered: []string{"a", "b"}, Context: 72, Positions: 72, MinCosine: 0.999, File: "m.gguf"}
}

// watched is a store that collects what it complains about.
func watched(dir string) (*parity.Store, *[]string) {
	var problems []string
	return &parity.Store{Dir: dir, Warn: func(p string) { problems = append(problems, p) }}, &problems
}

func TestStore(t *testing.T) {
	s, problems := watched(filepath.Join(t.TempDir(), "not", "there"))
	if _, ok := s.Get(key()); ok {
		t.Error("an empty store has a certificate")
	}
	s.Put(pass(key()))
	c, ok := s.Get(key())
	if !ok || c.Status != parity.Validated || !reflect.DeepEqual(c.Covered, []string{"a", "b"}) || !c.Verdict().Passed() || !c.Verdict().Cached {
		t.Errorf("%v %+v", ok, c)
	}
	fail := parity.Certificate{Key: key(), Status: parity.Mismatch, Reason: "cosine"}
	s.Put(fail)
	if c, ok := s.Get(key()); !ok || c.Status != parity.Mismatch || c.Reason != "cosine" || c.Verdict().Passed() {
		t.Errorf("a later failure does not replace a pass: %v %+v", ok, c)
	}
	if len(*problems) != 0 {
		t.Errorf("problems %q", *problems)
	}
}

// Each part of the key counts, and one that is unknown matches nothing.
func TestKeyParts(t *testing.T) {
	s, _ := watched(t.TempDir())
	s.Put(pass(key()))
	fields := reflect.TypeOf(parity.Key{})
	for i := range fields.NumField() {
		k := key()
		reflect.ValueOf(&k).Elem().Field(i).SetString("other")
		if _, ok := s.Get(k); ok {
			t.Errorf("a certificate holds for another %s", fields.Field(i).Name)
		}
		reflect.ValueOf(&k).Elem().Field(i).SetString("")
		s.Put(pass(k))
		if _, ok := s.Get(k); ok {
			t.Errorf("a certificate without %s is kept", fields.Field(i).Name)
		}
	}
}

// Whatever lies in the directory, it lets nothing through and stops nothing.
func TestBadCertificates(t *testing.T) {
	dir := t.TempDir()
	s, _ := watched(dir)
	s.Put(pass(key()))
	path := onlyFile(t, dir)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(change func(m map[string]any)) []byte {
		var m map[string]any
		if err := json.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, data := range map[string][]byte{
		"empty":              {},
		"truncated":          good[:len(good)/2],
		"not JSON":           []byte("certificate"),
		"a list":             []byte("[]"),
		"null":               []byte("null"),
		"huge":               []byte(strings.Repeat(" ", 2<<20)),
		"one bit flipped":    []byte(strings.Replace(string(good), `"positions": 72`, `"positions": 73`, 1)),
		"failure made pass":  edit(func(m map[string]any) { m["status"] = "mismatch" }),
		"unknown status":     edit(func(m map[string]any) { m["status"] = "fine" }),
		"not measured":       edit(func(m map[string]any) { m["status"] = "not measured" }),
		"without checksum":   edit(func(m map[string]any) { delete(m, "sum") }),
		"format of tomorrow": edit(func(m map[string]any) { m["format"] = 3 }),
		"foreign key":        edit(func(m map[string]any) { m["key"].(map[string]any)["model"] = "other" }),
		"more coverage":      edit(func(m map[string]any) { m["covered"] = []string{"a", "b", "c"} }),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			s, problems := watched(dir)
			if c, ok := s.Get(key()); ok {
				t.Errorf("accepted: %+v", c)
			}
			if len(*problems) != 1 {
				t.Errorf("problems told: %q, want one", *problems)
			}
			if _, broken, err := s.List(); err != nil || broken != 1 {
				t.Errorf("list: %d broken, %v", broken, err)
			}
			s.Put(pass(key()))
			if _, ok := s.Get(key()); !ok {
				t.Error("it cannot be replaced")
			}
		})
	}
	// Checksum right, but about something else, or from the future.
	other := key()
	other.Model = "another model"
	s.Put(pass(other))
	for _, e := range files(t, dir) {
		if e != path {
			if err := os.Rename(e, path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, ok := s.Get(key()); ok {
		t.Error("a certificate of another model is accepted")
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func onlyFile(t *testing.T, dir string) string {
	t.Helper()
	list := files(t, dir)
	if len(list) != 1 {
		t.Fatalf("%d files, want one", len(list))
	}
	return list[0]
}

// A directory that cannot be used costs certificates and nothing else.
func TestUselessDirectories(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	readOnly := filepath.Join(dir, "read-only")
	if err := os.Mkdir(readOnly, 0o500); err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]string{
		"a file":    file,
		"below one": filepath.Join(file, "certs"),
		"read-only": readOnly,
		"full":      "/dev/full",
		"none":      "",
	} {
		t.Run(name, func(t *testing.T) {
			s, problems := watched(d)
			s.Put(pass(key()))
			_, ok := s.Get(key())
			if ok && name != "read-only" { // the superuser can write there
				t.Error("a certificate was kept")
			}
			if !ok && d != "" && len(*problems) == 0 {
				t.Error("nothing is said about it")
			}
			g := &parity.Gate{Reference: source("cpu-exact", &toy{}), Policy: parity.Standard(), Store: s, Key: key()}
			if cert, v := g.Certify(t.Context(), source("gpu", &toy{}), toyCase(20)); cert.How() == "" || !v.Passed() {
				t.Errorf("a sound backend is not certified: %v %s", v.Status, v.Reason)
			}
			if cert, v := g.Certify(t.Context(), source("bad", spoil(0, func(r []float32) { clear(r) })), toyCase(20)); cert.How() != "" || v.Passed() {
				t.Errorf("a broken backend is certified: %v", v.Status)
			}
		})
	}
	var none *parity.Store
	none.Put(pass(key()))
	if _, ok := none.Get(key()); ok {
		t.Error("no store has a certificate")
	}
}

// Writers of the same certificate leave a valid one at every moment.
func TestConcurrentWriters(t *testing.T) {
	dir := t.TempDir()
	s := &parity.Store{Dir: dir}
	s.Put(pass(key()))
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 50 {
				c := pass(key())
				c.Reason = fmt.Sprint(w, i)
				(&parity.Store{Dir: dir}).Put(c)
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		if _, ok := s.Get(key()); !ok {
			t.Fatal("no valid certificate in between")
		}
	}
	onlyFile(t, dir) // nothing temporary is left
}

func TestListAndClear(t *testing.T) {
	dir := t.TempDir()
	s, _ := watched(dir)
	for _, m := range []string{"one", "two", "three"} {
		k := key()
		k.Model = m
		s.Put(pass(k))
	}
	foreign := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(foreign, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, broken, err := s.List()
	if err != nil || len(list) != 3 || broken != 0 {
		t.Errorf("%d certificates, %d broken, %v", len(list), broken, err)
	}
	if n, err := s.Clear(); err != nil || n != 3 {
		t.Errorf("removed %d, %v", n, err)
	}
	if onlyFile(t, dir) != foreign {
		t.Error("something else was removed")
	}
	gone := &parity.Store{Dir: filepath.Join(dir, "gone")}
	if list, _, err := gone.List(); err != nil || list != nil {
		t.Errorf("%v, %v", list, err)
	}
	if n, err := gone.Clear(); err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
}

// The hash of a file is that of its content, and is computed once.
func TestFileHash(t *testing.T) {
	s := &parity.Store{Dir: t.TempDir()}
	path := filepath.Join(t.TempDir(), "model.gguf")
	write := func(content string, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	hash := func() (string, time.Duration) {
		t.Helper()
		sum, took, err := s.FileHash([]string{path})
		if err != nil {
			t.Fatal(err)
		}
		return sum, took
	}
	write("one", time.Hour)
	first, took := hash()
	if took == 0 {
		t.Error("the first hash took no time")
	}
	if again, took := hash(); again != first || took != 0 {
		t.Errorf("the second is %s after %v, want the remembered %s", again, took, first)
	}
	write("two", time.Hour/2) // the same size, another time
	if changed, _ := hash(); changed == first {
		t.Error("a changed file has the same hash")
	}
	write("one", time.Minute)
	if back, _ := hash(); back != first {
		t.Error("the same content has another hash")
	}
	write("new", 0)
	hash()
	if _, took := hash(); took == 0 {
		t.Error("the hash of a file that may still be written is remembered")
	}
	if _, _, err := s.FileHash([]string{path, path + "x"}); err == nil {
		t.Error("a missing file has a hash")
	}
}

// Files of several pieces: every piece and their order count, and the sum is what it
// says, however many processors have made it.
func TestFileHashOfPieces(t *testing.T) {
	const piece = 16 << 20
	data := make([]byte, 2*piece+3)
	for i := range data {
		data[i] = byte(i >> 7)
	}
	path := filepath.Join(t.TempDir(), "model.gguf")
	hash := func() string {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		sum, _, err := (&parity.Store{}).FileHash([]string{path})
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	data[0], data[piece], data[2*piece] = 1, 2, 3
	var sums []byte
	for rest := data; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
		sum := sha256.Sum256(rest[:min(piece, len(rest))])
		sums = append(sums, sum[:]...)
	}
	whole := sha256.Sum256(fmt.Appendf(nil, "%x\n", sha256.Sum256(sums)))
	first := hash()
	if want := fmt.Sprintf("%x", whole[:16]); first != want {
		t.Errorf("%s, want %s", first, want)
	}
	seen := map[string]bool{first: true}
	for _, at := range []int{1, piece - 1, piece + 1, 2*piece - 1, len(data) - 1} {
		data[at] ^= 1
		if sum := hash(); seen[sum] {
			t.Errorf("byte %d does not count", at)
		} else {
			seen[sum] = true
		}
	}
	swapped := slices.Concat(data[piece:2*piece], data[:piece], data[2*piece:])
	data = swapped
	if seen[hash()] {
		t.Error("the order of the pieces does not count")
	}
	data = nil
	if seen[hash()] {
		t.Error("an empty file has the sum of another")
	}
}

func TestBuildID(t *testing.T) {
	if id := parity.BuildID(); len(id) != 32 {
		t.Errorf("build ID is %q, want a hash of the linker's", id)
	}
}

func TestProgramHash(t *testing.T) {
	build := func(eps float32, vocab int, freq float64) string {
		b := graph.NewBuilder("test", vocab, 8, 16)
		x := b.Embed("token_embd", "token_embd.weight")
		x = b.Rope("q_rope", x, graph.Rope{HeadDim: 8, InvFreq: []float64{1, freq}, Magnitude: 1})
		x = b.RMSNorm("output_norm", x, "output_norm.weight", 8, eps)
		b.Logits("output", x, "output.weight", 0)
		p, err := b.Program()
		if err != nil {
			t.Fatal(err)
		}
		return parity.ProgramHash(p)
	}
	one := build(1e-6, 32, 0.5)
	if one != build(1e-6, 32, 0.5) || one == build(1e-5, 32, 0.5) || one == build(1e-6, 33, 0.5) || one == build(1e-6, 32, 0.25) {
		t.Error("the hash does not follow the program")
	}
}

// A permission is for one executor, and the zero one is for none.
func TestCertified(t *testing.T) {
	exec, other := &toy{}, &toy{}
	if (parity.Certified{}).Allows(exec) == nil || (parity.Certified{}).Missing(nil) == "" {
		t.Error("the zero permission allows something")
	}
	g := &parity.Gate{Reference: source("cpu-exact", &toy{}), Policy: parity.Standard()}
	cert, v := g.Certify(t.Context(), source("gpu", exec), toyCase(20))
	if !v.Passed() || cert.Allows(exec) != nil || cert.How() != parity.ByProbe {
		t.Fatalf("%v %s", v.Status, v.Reason)
	}
	if cert.Allows(other) == nil || cert.Allows(nil) == nil {
		t.Error("the permission holds for another executor")
	}
	if cert.Missing([]string{"toy/batch", "toy/decode"}) != "" || cert.Missing([]string{"toy/decode", "toy/new"}) != "toy/new" {
		t.Error("coverage is wrong")
	}
	g.Revoke(cert, source("gpu", exec), parity.Verdict{Status: parity.Mismatch, Reason: "found later"})
	if err := cert.Allows(exec); err == nil || !strings.Contains(err.Error(), "found later") {
		t.Errorf("after revocation: %v", err)
	}
	// The reference needs no probe, unless it is made wrong.
	ref := &toy{}
	cert, v = g.Certify(t.Context(), source("cpu-exact", ref), toyCase(20))
	if cert.How() != parity.ByReference || !v.Passed() || ref.steps != 0 {
		t.Errorf("the reference: by %s after %d steps", cert.How(), ref.steps)
	}
	g.Fault = func(string) string { return "some fault" }
	broken := spoil(0, func(row []float32) { clear(row) })
	if cert, v = g.Certify(t.Context(), source("cpu-exact", broken), toyCase(20)); cert.How() != "" || v.Passed() {
		t.Error("a reference that is made wrong is not judged")
	}
}

func BenchmarkProgramHash(b *testing.B) {
	p := synthModel(b, "tiny-qwen2.5-1.5b", 0).program
	for b.Loop() {
		parity.ProgramHash(p)
	}
}
