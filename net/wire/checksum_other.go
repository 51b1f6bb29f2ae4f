//go:build !amd64

package wire

const (
	haveVectors = false
	vectorsPay  = 0
)

func sumVectors([]byte) uint64 { panic("wire: no vectors") }

func copyVectors(*byte, []byte) uint64 { panic("wire: no vectors") }
