// Command cri calls one method of the container runtime interface, version 1:
//
//	cri SOCKET METHOD <request.json >reply.json
//
// Requests and replies are the interface's own messages as JSON. It is a module of its own so that gRPC's packages and the interface's,
// which only the tests of CRI-O need, do not become requirements of everybody who takes the driver.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// limit is how long one call may take.
const limit = 3 * time.Minute

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: cri SOCKET METHOD <request.json >reply.json")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "cri: %s: %v\n", os.Args[2], err)
		os.Exit(1)
	}
}

func run(socket, name string, in io.Reader, out io.Writer) error {
	m, err := method(name)
	if err != nil {
		return err
	}
	request, err := message(m.Input())
	if err != nil {
		return err
	}
	reply, err := message(m.Output())
	if err != nil {
		return err
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if len(text) == 0 {
		text = []byte("{}")
	}
	if err := protojson.Unmarshal(text, request); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	// On a busy machine a server may not greet in time; only who asks for its version wants to know whether it is there.
	wait := grpc.WaitForReady(name != "Version")
	if err := conn.Invoke(ctx, fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()), request, reply, wait); err != nil {
		return err
	}
	text, err = protojson.Marshal(reply)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(text))
	return err
}

// method finds a method by its name, which no two services of the interface have in common.
func method(name string) (protoreflect.MethodDescriptor, error) {
	services := (&runtime.VersionRequest{}).ProtoReflect().Descriptor().ParentFile().Services()
	for i := range services.Len() {
		if m := services.Get(i).Methods().ByName(protoreflect.Name(name)); m != nil {
			return m, nil
		}
	}
	return nil, fmt.Errorf("the interface has no method of this name")
}

// message makes an empty message of a type.
func message(d protoreflect.MessageDescriptor) (proto.Message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		return nil, err
	}
	return t.New().Interface(), nil
}
