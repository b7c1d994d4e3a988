package evidence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"
)

func sample() (Record, map[string][]byte) {
	outputs := map[string][]byte{"1.stdout": []byte("0.995 <&>\n"), "1.stderr": nil}
	out := func(name string) Output {
		return Output{File: name, Bytes: int64(len(outputs[name])), SHA256: Hash(outputs[name])}
	}
	handled := false
	start := time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.FixedZone("CET", 3600))
	return Record{
		Contract: Contract{"claim-v1", "1.0.0", Hash([]byte("text"))}, Falsifier: "T-1", Definition: Hash(nil), Level: "live",
		Verdict: Fail, Handled: &handled, Started: start, Ended: start.Add(1500 * time.Millisecond),
		Steps: []Step{{Argv: []string{"apr", "run", "é"}, Env: []string{"A=b"}, Exit: 0, Seconds: 1.5,
			Stdout: out("1.stdout"), Stderr: out("1.stderr"), Files: map[string]FileFact{"x": {Exists: true, Bytes: 1, SHA256: Hash([]byte("x"))}}}},
		Predictions: []Prediction{{1, "stdout is >= 0.99", "0.995", true}},
		Machine:     Machine{OS: "linux", Arch: "amd64", Threads: 2, Devices: []string{"H200"}},
		Programs:    []Input{{"apr", Hash([]byte("apr")), 3}}, Models: []Input{},
		Sources: &Sources{[]string{"src"}, Hash([]byte("src"))}, Git: Git{"abc", true}, Tool: "pv test",
	}, outputs
}

func TestAppendAndOpen(t *testing.T) {
	root := t.TempDir()
	r, outputs := sample()
	dir, err := Append(root, r, outputs)
	if err != nil {
		t.Fatal(err)
	}
	if rel, _ := filepath.Rel(root, dir); filepath.Dir(rel) != filepath.Join("claim-v1", "T-1") || filepath.Base(rel)[:20] != "20261123T090001.623Z" {
		t.Errorf("folder %s", rel)
	}
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := r
	want.Schema, want.Started, want.Ended = Schema, r.Started.UTC(), r.Ended.UTC()
	if !reflect.DeepEqual(b.Record, want) {
		t.Errorf("read\n%+v, wrote\n%+v", b.Record, want)
	}
	if string(b.Outputs["1.stdout"]) != "0.995 <&>\n" {
		t.Errorf("stdout %q", b.Outputs["1.stdout"])
	}
	if _, err := Append(root, r, outputs); !errors.Is(err, ErrExists) {
		t.Errorf("the same run again: %v, want ErrExists", err)
	}
	entries, err := List(root, "claim-v1", "T-1")
	if err != nil || len(entries) != 1 || entries[0].Err != nil {
		t.Errorf("list %v, %v", entries, err)
	}
}

func TestListIsInOrderAndSkipsWhatIsBeingWritten(t *testing.T) {
	root := t.TempDir()
	r, outputs := sample()
	for _, minutes := range []int{5, 1, 3} {
		later := r
		later.Ended = r.Ended.Add(time.Duration(minutes) * time.Minute)
		if _, err := Append(root, later, outputs); err != nil {
			t.Fatal(err)
		}
	}
	parent := filepath.Join(root, "claim-v1", "T-1")
	if err := os.Mkdir(filepath.Join(parent, ".new-123"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(parent, "stray"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	entries, err := List(root, "claim-v1", "T-1")
	if err != nil || len(entries) != 4 {
		t.Fatalf("list %v, %v", entries, err)
	}
	for i := range 2 {
		if !entries[i].Bundle.Record.Ended.Before(entries[i+1].Bundle.Record.Ended) {
			t.Error("not in order of time")
		}
	}
	if entries[3].Err == nil {
		t.Error("a file in place of a bundle has no error")
	}
	for _, none := range [][2]string{{"claim-v1", "T-9"}, {"../claim-v1", "T-1"}, {"claim-v1", ".."}} {
		if entries, err := List(root, none[0], none[1]); err != nil || len(entries) > 0 {
			t.Errorf("%v: %v, %v", none, entries, err)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(r *Record, outputs map[string][]byte)
		want   error
	}{
		{"contract that leads out", func(r *Record, _ map[string][]byte) { r.Contract.Name = "../x" }, ErrName},
		{"falsifier with a slash", func(r *Record, _ map[string][]byte) { r.Falsifier = "a/b" }, ErrName},
		{"empty falsifier", func(r *Record, _ map[string][]byte) { r.Falsifier = "" }, ErrName},
		{"output that leads out", func(r *Record, o map[string][]byte) {
			r.Steps[0].Stdout.File = "../x"
			o["../x"] = o["1.stdout"]
		}, ErrName},
		{"output of another hash", func(_ *Record, o map[string][]byte) { o["1.stdout"] = []byte("else") }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			r, outputs := sample()
			tc.change(&r, outputs)
			_, err := Append(root, r, outputs)
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if entries, _ := List(root, "claim-v1", "T-1"); len(entries) > 0 {
				t.Errorf("left %v", entries)
			}
		})
	}
}

func TestConcurrentRunsBothStay(t *testing.T) {
	root := t.TempDir()
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			r, outputs := sample()
			r.Steps[0].Seconds = float64(i)
			if _, err := Append(root, r, outputs); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if entries, err := List(root, "claim-v1", "T-1"); err != nil || len(entries) != 8 {
		t.Errorf("%d bundles, %v", len(entries), err)
	}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	key := write("key.pem", "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(public)
	pub := write("pub.pem", "PUBLIC KEY", der, err)
	if got, err := ReadPrivateKey(key); err != nil || !got.Equal(private) {
		t.Errorf("private key: %v", err)
	}
	if got, err := ReadPublicKey(pub); err != nil || !got.Equal(public) {
		t.Errorf("public key: %v", err)
	}
	if _, err := ReadPrivateKey(pub); err == nil {
		t.Error("a public key is read as a private one")
	}
	if _, err := ReadPublicKey(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no key: %v", err)
	}
	// A key made by another program.
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl to make a key with")
	}
	other := filepath.Join(dir, "openssl.pem")
	if out, err := exec.Command(openssl, "genpkey", "-algorithm", "ed25519", "-out", other).CombinedOutput(); err != nil {
		t.Skipf("openssl makes no Ed25519 keys: %s", out)
	}
	if _, err := ReadPrivateKey(other); err != nil {
		t.Errorf("openssl's key: %v", err)
	}
}

// FuzzDecode reads damaged records. What is believed must be in its one form,
// with names that stay inside the folder.
func FuzzDecode(f *testing.F) {
	r, _ := sample()
	r.Schema = Schema
	r.Started, r.Ended = r.Started.UTC(), r.Ended.UTC()
	record, err := encode(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Add([]byte("{}"))
	f.Add(bytes.Replace(record, []byte("1.stdout"), []byte("../stdout"), 1))
	f.Fuzz(func(t *testing.T, record []byte) {
		name := r.Ended.Format(timeForm) + "-" + Hash(record)[:12]
		got, err := decode(record, r.Contract.Name, r.Falsifier, name)
		if err != nil {
			return
		}
		again, err := encode(got)
		if err != nil || !bytes.Equal(again, record) || got.Falsifier != r.Falsifier || got.Schema != Schema {
			t.Errorf("believed %s", record)
		}
		for _, s := range got.Steps {
			if filepath.Base(s.Stdout.File) != s.Stdout.File || filepath.Base(s.Stderr.File) != s.Stderr.File {
				t.Errorf("outputs %q and %q", s.Stdout.File, s.Stderr.File)
			}
		}
	})
}
