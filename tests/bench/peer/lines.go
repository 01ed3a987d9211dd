package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"time"
)

// entry is docker's, as nerdctl's json-file driver encodes it.
type entry struct {
	Log    string    `json:"log,omitempty"`
	Stream string    `json:"stream,omitempty"`
	Time   time.Time `json:"time"`
}

// logger reads descriptor 3 to its end and writes path, a line at a time, and reports its cost.
func logger(format, path string) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	check(err)
	source := os.NewFile(3, "stdout")
	ready := os.NewFile(5, "ready")
	_, err = ready.Write([]byte{0})
	check(err)
	check(ready.Close())
	if format == "cri" {
		cri(file, source, 16384)
	} else {
		jsonFile(file, source)
	}
	check(file.Close())
}

// jsonFile is nerdctl's loop: read a line, encode one entry.
func jsonFile(sink io.Writer, source io.Reader) {
	encoder := json.NewEncoder(sink)
	reader := bufio.NewReader(source)
	for {
		line, err := reader.ReadString('\n')
		if line != "" {
			check(encoder.Encode(&entry{Log: line, Stream: "stdout", Time: time.Now().UTC()}))
		}
		if err == io.EOF {
			return
		}
		check(err)
	}
}

// cri is the algorithm of containerd's logger: pieces of at most a cap, one write for each.
func cri(sink io.Writer, source io.Reader, most int) {
	reader := bufio.NewReaderSize(source, 4096)
	var piece []byte
	put := func(tag string, line []byte) {
		var out bytes.Buffer
		out.WriteString(time.Now().Format(time.RFC3339Nano))
		out.WriteString(" stdout " + tag + " ")
		out.Write(line)
		out.WriteByte('\n')
		_, err := sink.Write(out.Bytes())
		check(err)
	}
	for {
		part, err := reader.ReadSlice('\n')
		whole := err == nil
		if whole {
			part = part[:len(part)-1]
		}
		piece = append(piece, part...)
		for len(piece) > most {
			put("P", piece[:most])
			piece = piece[most:]
		}
		if whole {
			put("F", bytes.TrimSuffix(piece, []byte("\r")))
			piece = nil
		} else if err == io.EOF {
			if len(piece) > 0 {
				put("P", piece)
			}
			return
		} else if err != bufio.ErrBufferFull {
			check(err)
		}
	}
}
