package evidence

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// ErrUnsigned says that a bundle has no signature, or none of the keys given.
var ErrUnsigned = errors.New("not signed by a known key")

// Types of the signed statement: an in-toto Statement v1 in a DSSE envelope.
const (
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "urn:apr:pv:evidence:v1"
	payloadType   = "application/vnd.in-toto+json"
)

// statement says of a record that the signer vouches for it. The predicate is
// small: the record itself is covered by its digest.
type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     predicate `json:"predicate"`
}

// subject names the record by its hash.
type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// predicate repeats what the record is about, for people who look at envelopes.
type predicate struct {
	Contract  string `json:"contract"`
	Falsifier string `json:"falsifier"`
	Verdict   string `json:"verdict"`
}

// Sign adds a signed envelope to a bundle. It replaces an earlier one.
func Sign(b *Bundle, key ed25519.PrivateKey) error {
	body, err := json.Marshal(statement{
		Type:          statementType,
		Subject:       []subject{{b.Name, map[string]string{"sha256": b.Digest}}},
		PredicateType: predicateType,
		Predicate:     predicate{b.Record.Contract.Name, b.Record.Falsifier, b.Record.Verdict},
	})
	if err != nil {
		return err
	}
	signer, err := dsse.NewEnvelopeSigner(edKey{private: key, public: key.Public().(ed25519.PublicKey)})
	if err != nil {
		return err
	}
	envelope, err := signer.SignPayload(context.Background(), payloadType, body)
	if err != nil {
		return err
	}
	out, err := json.MarshalIndent(envelope, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.Dir, envelopeFile), append(out, '\n'), 0o644)
}

// VerifySignature checks that one of the keys signed this bundle.
func VerifySignature(b *Bundle, keys []ed25519.PublicKey) error {
	unsigned := func(why string) error { return fmt.Errorf("%s: %w: %s", b.Dir, ErrUnsigned, why) }
	data, err := read(b.Dir, envelopeFile)
	if errors.Is(err, ErrMissing) {
		return unsigned("no signature")
	} else if err != nil {
		return err
	}
	var envelope dsse.Envelope
	if err := json.Unmarshal(data, &envelope); err != nil {
		return unsigned("the envelope is not readable")
	}
	var verifiers []dsse.Verifier
	for _, k := range keys {
		verifiers = append(verifiers, edKey{public: k})
	}
	verifier, err := dsse.NewEnvelopeVerifier(verifiers...)
	if err != nil {
		return unsigned(err.Error())
	}
	_, body, err := verifier.VerifyAndDecode(context.Background(), &envelope)
	if err != nil {
		return unsigned("no valid signature of a given key")
	}
	var s statement
	if err := json.Unmarshal(body, &s); err != nil || envelope.PayloadType != payloadType || s.Type != statementType || s.PredicateType != predicateType {
		return unsigned("the statement is of another type")
	}
	if len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != b.Digest {
		return unsigned("the statement is about another record")
	}
	return nil
}

// edKey makes an Ed25519 key a signer and a verifier of envelopes.
type edKey struct {
	private ed25519.PrivateKey
	public  ed25519.PublicKey
}

func (k edKey) Sign(_ context.Context, data []byte) ([]byte, error) {
	return ed25519.Sign(k.private, data), nil
}

func (k edKey) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(k.public, data, sig) {
		return errors.New("wrong signature")
	}
	return nil
}

func (k edKey) KeyID() (string, error)   { return dsse.SHA256KeyID(k.public) }
func (k edKey) Public() crypto.PublicKey { return k.public }

// ReadPrivateKey reads an Ed25519 key in PKCS #8 PEM, as openssl genpkey writes.
func ReadPrivateKey(path string) (ed25519.PrivateKey, error) {
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if ed, ok := key.(ed25519.PrivateKey); err == nil && ok {
		return ed, nil
	}
	return nil, fmt.Errorf("%s: no Ed25519 private key in PKCS #8", path)
}

// ReadPublicKey reads an Ed25519 key in PKIX PEM.
func ReadPublicKey(path string) (ed25519.PublicKey, error) {
	der, err := readPEM(path, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if ed, ok := key.(ed25519.PublicKey); err == nil && ok {
		return ed, nil
	}
	return nil, fmt.Errorf("%s: no Ed25519 public key", path)
}

// readPEM returns the one block of a PEM file.
func readPEM(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: no PEM block %s", path, kind)
	}
	return block.Bytes, nil
}
