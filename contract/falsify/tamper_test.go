package falsify

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/evidence"
)

// forge rewrites a record and everything that follows from it inside the
// bundle: hashes of outputs, and the folder's name. It is what someone does who
// knows how bundles are made.
func (s *site) forge(dir string, change func(r *evidence.Record, outputs map[string][]byte)) string {
	s.t.Helper()
	b, err := evidence.Open(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	r, outputs := b.Record, b.Outputs
	change(&r, outputs)
	for i := range r.Steps {
		for _, o := range []*evidence.Output{&r.Steps[i].Stdout, &r.Steps[i].Stderr} {
			o.SHA256, o.Bytes = evidence.Hash(outputs[o.File]), int64(len(outputs[o.File]))
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		s.t.Fatal(err)
	}
	forged, err := evidence.Append(s.runner.Evidence, r, outputs)
	if err != nil {
		s.t.Fatal(err)
	}
	return forged
}

func (s *site) inBundle(dir, name string) string {
	s.t.Helper()
	rel, err := filepath.Rel(s.root, filepath.Join(dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return rel
}

// TestTampering takes a discharged contract, changes one thing, and wants audit
// to see it.
func TestTampering(t *testing.T) {
	const file = "contracts/claim-v1.yaml"
	for _, tc := range []struct {
		name   string
		tamper func(s *site, dir string)
		rule   string
	}{
		{"threshold loosened", func(s *site, _ string) { s.edit(file, ">= 0.99\"", ">= 0.5\"") }, "STATUS-001"},
		{"prediction reworded", func(s *site, _ string) { s.edit(file, "is at least 0.99", "is at least 0.999") }, "STATUS-001"},
		{"formula changed", func(s *site, _ string) { s.edit(file, "cosine ≥ 0.99", "cosine ≥ 0.9") }, "STATUS-001"},
		{"expectation removed", func(s *site, _ string) {
			s.edit(file, "        - {on: json, path: text, equals: \"weights\"}\n", "")
		}, "STATUS-001"},
		{"command changed", func(s *site, _ string) { s.edit(file, "[prog, measure, \"${model:m}\"]", "[prog, measure, --fast]") }, "STATUS-001"},
		{"level raised", func(s *site, _ string) { s.edit(file, "level: functional\n      run", "level: live\n      run") }, "STATUS-001"},
		{"status raised", func(s *site, _ string) { s.edit(file, "status: FUNCTIONAL", "status: DISCHARGED") }, "STATUS-001"},
		{"status of a blocked test raised", func(s *site, _ string) {
			s.edit(file, "status: BLOCKER_FIXTURE_ABSENT", "status: PARTIAL_ALGORITHM_LEVEL")
		}, "STATUS-001"},
		{"status given to prose", func(s *site, _ string) { s.edit(file, "  - id: T-3\n", "  - id: T-3\n    status: DISCHARGED\n") }, "STATUS-001"},
		{"status that does not exist", func(s *site, _ string) { s.edit(file, "status: FUNCTIONAL", "status: FULL_DISCHARGED") }, "STATUS-008"},
		{"evidence named that is not there", func(s *site, dir string) { s.edit(file, filepath.Base(dir), "20261123T000000.000Z-0123456789ab") }, "STATUS-004"},
		{"count edited", func(s *site, _ string) { s.edit(file, "discharged: 1", "discharged: 4") }, "STATUS-005"},
		{"obligation count edited", func(s *site, _ string) { s.edit(file, "total_obligations: 1", "total_obligations: 9") }, "STATUS-005"},
		{"program and sources replaced", func(s *site, _ string) { s.edit("bin/prog", "0.995", "0.1"); s.edit("src/main.go", "main", "x") }, "STATUS-001"},
		{"model replaced", func(s *site, _ string) { s.write("models/m.gguf", "other weights") }, "STATUS-001"},
		{"output edited", func(s *site, dir string) { s.edit(s.inBundle(dir, "1.stdout"), "0.995", "0.999") }, "STATUS-003"},
		{"output emptied", func(s *site, dir string) { s.write(s.inBundle(dir, "1.stdout"), "") }, "STATUS-003"},
		{"output missing", func(s *site, dir string) { os.Remove(filepath.Join(dir, "1.stderr")) }, "STATUS-003"},
		{"output is a link", func(s *site, dir string) {
			os.Rename(filepath.Join(dir, "1.stdout"), filepath.Join(s.root, "moved"))
			os.Symlink(filepath.Join(s.root, "moved"), filepath.Join(dir, "1.stdout"))
		}, "STATUS-003"},
		{"hash in the record edited", func(s *site, dir string) { s.edit(s.inBundle(dir, "record.json"), `"sha256": "`, `"sha256": "0`) }, "STATUS-003"},
		{"date edited", func(s *site, dir string) { s.edit(s.inBundle(dir, "record.json"), "2026-11-23", "2026-11-24") }, "STATUS-003"},
		{"machine edited", func(s *site, dir string) { s.edit(s.inBundle(dir, "record.json"), `"threads": `, `"threads": 1`) }, "STATUS-003"},
		{"key added to the record", func(s *site, dir string) { s.edit(s.inBundle(dir, "record.json"), "{", "{\n  \"extra\": 1,") }, "STATUS-003"},
		{"record missing", func(s *site, dir string) { os.Remove(filepath.Join(dir, "record.json")) }, "STATUS-003"},
		{"record emptied", func(s *site, dir string) { s.write(s.inBundle(dir, "record.json"), "{}") }, "STATUS-003"},
		{"bundle missing", func(s *site, dir string) { os.RemoveAll(dir) }, "STATUS-004"},
		{"ledger missing", func(s *site, _ string) { os.RemoveAll(s.runner.Evidence) }, "STATUS-001"},
		{"file added", func(s *site, dir string) { s.write(s.inBundle(dir, "note.txt"), "trust me") }, "STATUS-003"},
		{"folder renamed", func(s *site, dir string) { os.Rename(dir, dir[:len(dir)-1]+"x") }, "STATUS-003"},
		{"bundle of another falsifier", func(s *site, dir string) {
			other := filepath.Join(s.runner.Evidence, "claim-v1", "T-2")
			os.RemoveAll(other)
			os.CopyFS(filepath.Join(other, filepath.Base(dir)), os.DirFS(dir))
		}, "STATUS-003"},
		{"forged output", func(s *site, dir string) {
			s.forge(dir, func(_ *evidence.Record, out map[string][]byte) {
				out["1.stdout"] = bytes.Replace(out["1.stdout"], []byte("0.995"), []byte("0.5"), 1)
			})
		}, "STATUS-003"},
		{"forged table", func(s *site, dir string) {
			s.forge(dir, func(r *evidence.Record, _ map[string][]byte) { r.Predictions[1].Observed = "0.9999" })
		}, "STATUS-003"},
		{"forged table, a row less", func(s *site, dir string) {
			s.forge(dir, func(r *evidence.Record, _ map[string][]byte) { r.Predictions = r.Predictions[:1] })
		}, "STATUS-003"},
		{"forged exit code", func(s *site, dir string) {
			s.forge(dir, func(r *evidence.Record, _ map[string][]byte) { r.Steps[0].Exit = 1 })
		}, "STATUS-003"},
		{"forged level", func(s *site, dir string) {
			s.forge(dir, func(r *evidence.Record, _ map[string][]byte) { r.Level = "functional" })
		}, "STATUS-003"},
		{"forged date", func(s *site, dir string) {
			s.forge(dir, func(r *evidence.Record, _ map[string][]byte) { r.Ended = r.Ended.Add(-time.Nanosecond) })
		}, "STATUS-004"},
		{"forged date in the future, named by the contract", func(s *site, dir string) {
			forged := s.forge(dir, func(r *evidence.Record, _ map[string][]byte) { r.Ended = r.Ended.AddDate(1, 0, 0) })
			s.edit(file, filepath.Base(dir), filepath.Base(forged))
		}, "STATUS-003"},
		{"forged end before the start", func(s *site, dir string) {
			s.forge(dir, func(r *evidence.Record, _ map[string][]byte) { r.Ended = r.Started.Add(-time.Hour) })
		}, "STATUS-003"},
		{"forged model", func(s *site, dir string) {
			s.forge(dir, func(r *evidence.Record, _ map[string][]byte) { r.Models[0].SHA256 = strings.Repeat("0", 64) })
		}, "STATUS-001"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t)
			_, dir := s.run("T-1")
			s.run("T-2")
			s.run("T-4")
			s.discharge()
			if errs := s.errors(); len(errs) > 0 {
				t.Fatalf("before: %v", errs)
			}
			tc.tamper(s, dir)
			if errs := s.errors(); !slices.Contains(errs, tc.rule) {
				t.Errorf("found %v, want %s", errs, tc.rule)
			}
		})
	}
}

// TestAFailureCannotBecomeAPass turns the verdict of a failed run round.
func TestAFailureCannotBecomeAPass(t *testing.T) {
	s := newSite(t)
	s.edit("bin/prog", "0.995", "0.9")
	_, dir := s.run("T-1")
	s.forge(dir, func(r *evidence.Record, _ map[string][]byte) {
		r.Verdict, r.Handled = evidence.Pass, nil
		r.Predictions = r.Predictions[:3]
		for i := range r.Predictions {
			r.Predictions[i].Match = true
		}
	})
	if got := s.status("T-1"); got.Status != contract.Unbound || len(got.Bad) != 1 {
		t.Errorf("status %s with %d bad bundles, want unbound with one", got.Status, len(got.Bad))
	}
}

// TestOnlyASignatureShowsWhoWrote: someone who forges every part consistently,
// contract included, is seen by nothing but a signature.
func TestOnlyASignatureShowsWhoWrote(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	s.runner.Key = private
	_, dir := s.run("T-1")
	status := func(keys ...ed25519.PublicKey) contract.Status {
		l := s.ledger()
		l.Keys = keys
		c := s.contract()
		sup, err := l.Support(c, c.Falsifier("T-1"))
		if err != nil {
			t.Fatal(err)
		}
		return sup.Status
	}
	if got := status(stranger, public); got != contract.Discharged {
		t.Errorf("signed by a known key: %s", got)
	}
	if got := status(stranger); got != contract.Unbound {
		t.Errorf("signed by an unknown key: %s", got)
	}
	envelope, err := os.ReadFile(filepath.Join(dir, "record.dsse.json"))
	if err != nil {
		t.Fatal(err)
	}
	forged := s.forge(dir, func(r *evidence.Record, _ map[string][]byte) { r.Machine.CPU = "a better one" })
	if got := status(); got != contract.Discharged {
		t.Errorf("forged, without keys: %s: this is what signatures are for", got)
	}
	if got := status(public); got != contract.Unbound {
		t.Errorf("forged, with a key: %s", got)
	}
	s.write(s.inBundle(forged, "record.dsse.json"), string(envelope))
	if got := status(public); got != contract.Unbound {
		t.Errorf("forged, with the signature of the old record: %s", got)
	}
	var e map[string]any
	if err := json.Unmarshal(envelope, &e); err != nil || e["payloadType"] != "application/vnd.in-toto+json" {
		t.Errorf("envelope %v, %v", e["payloadType"], err)
	}
}
