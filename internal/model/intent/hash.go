package intent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Hash is the SHA-256, in hex, of the Intent as canonical JSON: keys sorted in maps,
// fields in the order of the type, nothing that is left out. Two files that mean the
// same have the same Hash, whatever their comments and their order of keys.
func (in Intent) Hash() (string, error) {
	b, err := json.Marshal(in)
	if err != nil {
		return "", fmt.Errorf("hash intent: %w", err)
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:]), nil
}
