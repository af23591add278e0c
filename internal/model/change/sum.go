package change

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Sum is what Plan.ID has to be: the SHA-256 in hex of the Plan's JSON with an empty ID
// and without its Proof.
func (p *Plan) Sum() string {
	q := *p
	q.ID, q.Proof = "", nil
	b, err := json.Marshal(&q)
	if err != nil {
		return "" // no member of a Plan fails to encode
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
