// Command crictl answers as Kubernetes' crictl does for the commands that this
// project and its tests call on a node. The lab builds it itself because the
// upstream module, sigs.k8s.io/cri-tools, cannot be had through every Go
// module proxy (no entry in the checksum database). It talks to the real CRI
// of the real runtime; only the command line around it is ours.
//
// Kept like upstream: names of commands and flags, flag positions (global ones
// before the command), JSON field names and nesting, exit codes, and messages
// such as `no such image "…" present`. A machine with the real crictl on its
// PATH uses that one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/protoadapt"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const config = "/etc/crictl.yaml"

var version = "unknown"

type client struct {
	images  cri.ImageServiceClient
	runtime cri.RuntimeServiceClient
	timeout time.Duration
}

type command struct {
	names []string
	run   func(client, []string) error
}

func commands() []command {
	return []command{
		{[]string{"images", "image", "img"}, listImages},
		{[]string{"inspecti"}, inspectImages},
		{[]string{"rmi"}, removeImages},
		{[]string{"pull"}, pullImage},
		{[]string{"imagefsinfo"}, imageFsInfo},
		{[]string{"info"}, info},
		{[]string{"version"}, showVersion},
		{[]string{"ps"}, listContainers},
		{[]string{"pods"}, listPods},
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "time=%q level=fatal msg=%q\n", time.Now().Format(time.RFC3339), err.Error())
			os.Exit(1)
		}
	}
}

func run(arguments []string) error {
	settings := readConfig(config)
	var runtimeEndpoint, imageEndpoint string
	var timeout time.Duration
	var showOwnVersion bool
	global := flag.NewFlagSet("crictl", flag.ContinueOnError)
	both := func(value *string, initial string, names ...string) {
		for _, name := range names {
			global.StringVar(value, name, initial, "")
		}
	}
	both(&runtimeEndpoint, first(os.Getenv("CONTAINER_RUNTIME_ENDPOINT"), settings["runtime-endpoint"], "unix:///run/containerd/containerd.sock"), "runtime-endpoint", "r")
	both(&imageEndpoint, first(os.Getenv("IMAGE_SERVICE_ENDPOINT"), settings["image-endpoint"]), "image-endpoint", "i")
	global.DurationVar(&timeout, "timeout", 2*time.Second, "")
	global.DurationVar(&timeout, "t", 2*time.Second, "")
	global.Bool("debug", false, "")
	global.Bool("D", false, "")
	global.BoolVar(&showOwnVersion, "version", false, "")
	global.BoolVar(&showOwnVersion, "v", false, "")
	if err := global.Parse(arguments); err != nil {
		return err
	}
	if showOwnVersion {
		fmt.Printf("crictl version %s\n", version)
		return nil
	}
	rest := global.Args()
	if len(rest) == 0 {
		return errors.New("no command given")
	}
	for _, candidate := range commands() {
		for _, name := range candidate.names {
			if name != rest[0] {
				continue
			}
			runtimeConnection, err := dial(runtimeEndpoint)
			if err != nil {
				return err
			}
			defer runtimeConnection.Close()
			imageConnection, err := dial(first(imageEndpoint, runtimeEndpoint))
			if err != nil {
				return err
			}
			defer imageConnection.Close()
			return candidate.run(client{cri.NewImageServiceClient(imageConnection), cri.NewRuntimeServiceClient(runtimeConnection), timeout}, rest[1:])
		}
	}
	return fmt.Errorf("No help topic for '%s'", rest[0])
}

func dial(endpoint string) (*grpc.ClientConn, error) {
	if strings.HasPrefix(endpoint, "/") {
		endpoint = "unix://" + endpoint
	}
	// A large node lists more than gRPC's default of 4 MiB; crictl allows 16.
	return grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
}

// readConfig reads the flat `key: value` pairs of /etc/crictl.yaml.
func readConfig(path string) map[string]string {
	settings := map[string]string{}
	text, err := os.ReadFile(path)
	if err != nil {
		return settings
	}
	for _, line := range strings.Split(string(text), "\n") {
		if key, value, found := strings.Cut(line, ":"); found {
			settings[strings.TrimSpace(key)] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return settings
}

func first(values ...string) string {
	for _, value := range values {
		if value != "" {
			return value
		}
	}
	return ""
}

// parse accepts flags before and after the positional arguments, each under
// all its names, and returns the positional ones.
func parse(name string, arguments []string, define func(*flag.FlagSet)) ([]string, error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	define(flags)
	var positional []string
	for {
		if err := flags.Parse(arguments); err != nil {
			return nil, err
		}
		arguments = flags.Args()
		if len(arguments) == 0 {
			return positional, nil
		}
		positional = append(positional, arguments[0])
		arguments = arguments[1:]
	}
}

func text(flags *flag.FlagSet, value *string, names ...string) {
	for _, name := range names {
		flags.StringVar(value, name, *value, "")
	}
}

func truth(flags *flag.FlagSet, value *bool, names ...string) {
	for _, name := range names {
		flags.BoolVar(value, name, *value, "")
	}
}

func (c client) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), c.timeout)
}

func marshal(message protoadapt.MessageV1) (json.RawMessage, error) {
	return protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(protoadapt.MessageV2Of(message))
}

func printJSON(value any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func printMessage(message protoadapt.MessageV1) error {
	encoded, err := marshal(message)
	if err != nil {
		return err
	}
	return printJSON(encoded)
}

// status is the document of inspecti, info and imagefsinfo: the message under
// `status`, and beside it each key of the runtime's verbose info, whose value
// is JSON where the runtime sent a JSON object.
func status(message protoadapt.MessageV1, verbose map[string]string) (map[string]any, error) {
	encoded, err := marshal(message)
	if err != nil {
		return nil, err
	}
	document := map[string]any{"status": encoded}
	for key, value := range verbose {
		if strings.HasPrefix(value, "{") && json.Valid([]byte(value)) {
			document[key] = json.RawMessage(value)
		} else {
			document[key] = strings.Trim(value, `"`)
		}
	}
	return document, nil
}

func table(rows [][]string) {
	writer := tabwriter.NewWriter(os.Stdout, 20, 1, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(writer, strings.Join(row, "\t"))
	}
	writer.Flush()
}

func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	if len(id) > 13 {
		return id[:13]
	}
	return id
}

func listImages(c client, arguments []string) error {
	var output string
	var quiet, verbose, noTrunc, digests, pinned bool
	names, err := parse("images", arguments, func(flags *flag.FlagSet) {
		text(flags, &output, "output", "o")
		truth(flags, &quiet, "quiet", "q")
		truth(flags, &verbose, "verbose", "v")
		truth(flags, &noTrunc, "no-trunc")
		truth(flags, &digests, "digests")
		truth(flags, &pinned, "pinned")
	})
	if err != nil {
		return err
	}
	request := &cri.ListImagesRequest{}
	if len(names) > 0 {
		request.Filter = &cri.ImageFilter{Image: &cri.ImageSpec{Image: names[0]}}
	}
	ctx, cancel := c.context()
	defer cancel()
	response, err := c.images.ListImages(ctx, request)
	if err != nil {
		return fmt.Errorf("listing images: %w", err)
	}
	sort.Slice(response.Images, func(i, j int) bool {
		a, b := response.Images[i], response.Images[j]
		if len(a.RepoTags) > 0 && len(b.RepoTags) > 0 {
			return a.RepoTags[0] < b.RepoTags[0]
		}
		return a.Id < b.Id
	})
	switch {
	case output == "json":
		return printMessage(response)
	case output != "" && output != "table":
		return fmt.Errorf("output %q is not built into the lab's crictl", output)
	case quiet:
		for _, image := range response.Images {
			fmt.Println(image.Id)
		}
		return nil
	case verbose:
		for _, image := range response.Images {
			fmt.Printf("ID: %s\n", image.Id)
			for _, tag := range image.RepoTags {
				fmt.Printf("RepoTags: %s\n", tag)
			}
			for _, digest := range image.RepoDigests {
				fmt.Printf("RepoDigests: %s\n", digest)
			}
			fmt.Printf("Size: %d\n", image.Size)
			if image.Pinned {
				fmt.Printf("Pinned: %v\n", image.Pinned)
			}
			fmt.Println()
		}
		return nil
	}
	header := []string{"IMAGE", "TAG"}
	if digests {
		header = append(header, "DIGEST")
	}
	header = append(header, "IMAGE ID", "SIZE")
	if pinned {
		header = append(header, "PINNED")
	}
	rows := [][]string{header}
	for _, image := range response.Images {
		repository, digest := "<none>", "<none>"
		if len(image.RepoDigests) > 0 {
			repository, digest, _ = strings.Cut(image.RepoDigests[0], "@")
		}
		tags := image.RepoTags
		if len(tags) == 0 {
			tags = []string{repository + ":<none>"}
		}
		id := image.Id
		if !noTrunc {
			id, digest = short(id), short(digest)
		}
		for _, tag := range tags {
			colon := strings.LastIndex(tag, ":")
			row := []string{tag[:colon], tag[colon+1:]}
			if digests {
				row = append(row, digest)
			}
			row = append(row, id, size(image.Size))
			if pinned {
				row = append(row, fmt.Sprint(image.Pinned))
			}
			rows = append(rows, row)
		}
	}
	table(rows)
	return nil
}

func size(bytes uint64) string {
	value, units := float64(bytes), []string{"B", "kB", "MB", "GB", "TB"}
	for len(units) > 1 && value >= 1000 {
		value, units = value/1000, units[1:]
	}
	return fmt.Sprintf("%.3g%s", value, units[0])
}

func inspectImages(c client, arguments []string) error {
	output, quiet := "json", false
	names, err := parse("inspecti", arguments, func(flags *flag.FlagSet) {
		text(flags, &output, "output", "o")
		truth(flags, &quiet, "quiet", "q")
	})
	if err != nil {
		return err
	}
	if output != "json" {
		return fmt.Errorf("output %q is not built into the lab's crictl", output)
	}
	var documents []any
	for _, name := range names {
		ctx, cancel := c.context()
		response, err := c.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}, Verbose: !quiet})
		cancel()
		if err != nil {
			return fmt.Errorf("image status for %q request: %w", name, err)
		}
		if response.Image == nil {
			return fmt.Errorf("no such image %q present", name)
		}
		document, err := status(response.Image, response.Info)
		if err != nil {
			return err
		}
		documents = append(documents, document)
	}
	if len(documents) == 1 {
		return printJSON(documents[0])
	}
	return printJSON(documents)
}

func removeImages(c client, arguments []string) error {
	var all, prune bool
	names, err := parse("rmi", arguments, func(flags *flag.FlagSet) {
		truth(flags, &all, "all", "a")
		truth(flags, &prune, "prune", "q")
	})
	if err != nil {
		return err
	}
	if all || prune {
		used := map[string]bool{}
		ctx, cancel := c.context()
		defer cancel()
		if prune {
			containers, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{})
			if err != nil {
				return err
			}
			for _, container := range containers.Containers {
				used[container.ImageRef] = true
				used[container.Image.GetImage()] = true
			}
		}
		images, err := c.images.ListImages(ctx, &cri.ListImagesRequest{})
		if err != nil {
			return err
		}
		for _, image := range images.Images {
			if !prune || (!image.Pinned && !used[image.Id]) {
				names = append(names, image.Id)
			}
		}
	}
	failed := false
	for _, name := range names {
		if err := removeImage(c, name); err != nil {
			fmt.Fprintf(os.Stderr, "time=%q level=error msg=%q\n", time.Now().Format(time.RFC3339), err.Error())
			failed = true
		}
	}
	if failed {
		return errors.New("unable to remove the image(s)")
	}
	return nil
}

func removeImage(c client, name string) error {
	ctx, cancel := c.context()
	defer cancel()
	spec := &cri.ImageSpec{Image: name}
	found, err := c.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec})
	if err != nil {
		return fmt.Errorf("image status request for %q failed: %w", name, err)
	}
	if found.Image == nil {
		return fmt.Errorf("no such image %s", name)
	}
	if _, err := c.images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: spec}); err != nil {
		return fmt.Errorf("error of removing image %q: %w", name, err)
	}
	for _, tag := range append(found.Image.RepoTags, found.Image.RepoDigests...) {
		fmt.Printf("Deleted: %s\n", tag)
	}
	return nil
}

func pullImage(c client, arguments []string) error {
	names, err := parse("pull", arguments, func(*flag.FlagSet) {})
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("Image name cannot be empty")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	response, err := c.images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: names[0]}})
	if err != nil {
		return fmt.Errorf("pulling image: %w", err)
	}
	fmt.Printf("Image is up to date for %s\n", response.ImageRef)
	return nil
}

func imageFsInfo(c client, arguments []string) error {
	output := "json"
	if _, err := parse("imagefsinfo", arguments, func(flags *flag.FlagSet) { text(flags, &output, "output", "o") }); err != nil {
		return err
	}
	ctx, cancel := c.context()
	defer cancel()
	response, err := c.images.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err != nil {
		return fmt.Errorf("image filesystem info request: %w", err)
	}
	document, err := status(response, nil)
	if err != nil {
		return err
	}
	return printJSON(document)
}

func info(c client, arguments []string) error {
	output, quiet := "json", false
	if _, err := parse("info", arguments, func(flags *flag.FlagSet) {
		text(flags, &output, "output", "o")
		truth(flags, &quiet, "quiet", "q")
	}); err != nil {
		return err
	}
	ctx, cancel := c.context()
	defer cancel()
	response, err := c.runtime.Status(ctx, &cri.StatusRequest{Verbose: !quiet})
	if err != nil {
		return fmt.Errorf("getting status of runtime: %w", err)
	}
	document, err := status(response.Status, response.Info)
	if err != nil {
		return err
	}
	return printJSON(document)
}

func showVersion(c client, arguments []string) error {
	output := ""
	if _, err := parse("version", arguments, func(flags *flag.FlagSet) { text(flags, &output, "output", "o") }); err != nil {
		return err
	}
	ctx, cancel := c.context()
	defer cancel()
	response, err := c.runtime.Version(ctx, &cri.VersionRequest{Version: "v1"})
	if err != nil {
		return fmt.Errorf("getting the runtime version: %w", err)
	}
	if output == "json" {
		return printMessage(response)
	}
	fmt.Printf("Version:  %s\nRuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n",
		response.Version, response.RuntimeName, response.RuntimeVersion, response.RuntimeApiVersion)
	return nil
}

func listContainers(c client, arguments []string) error {
	var output, name, pod string
	var all, quiet bool
	if _, err := parse("ps", arguments, func(flags *flag.FlagSet) {
		text(flags, &output, "output", "o")
		text(flags, &name, "name")
		text(flags, &pod, "pod", "p")
		truth(flags, &all, "all", "a")
		truth(flags, &quiet, "quiet", "q")
	}); err != nil {
		return err
	}
	filter := &cri.ContainerFilter{PodSandboxId: pod}
	if !all {
		filter.State = &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}
	}
	ctx, cancel := c.context()
	defer cancel()
	response, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: filter})
	if err != nil {
		return fmt.Errorf("listing containers: %w", err)
	}
	kept := response.Containers[:0]
	for _, container := range response.Containers {
		if strings.Contains(container.Metadata.GetName(), name) {
			kept = append(kept, container)
		}
	}
	response.Containers = kept
	if output == "json" {
		return printMessage(response)
	}
	rows := [][]string{{"CONTAINER", "IMAGE", "STATE", "NAME", "ATTEMPT", "POD ID"}}
	for _, container := range response.Containers {
		if quiet {
			fmt.Println(container.Id)
			continue
		}
		state := strings.TrimPrefix(container.State.String(), "CONTAINER_")
		rows = append(rows, []string{short(container.Id), container.Image.GetImage(), state[:1] + strings.ToLower(state[1:]),
			container.Metadata.GetName(), fmt.Sprint(container.Metadata.GetAttempt()), short(container.PodSandboxId)})
	}
	if !quiet {
		table(rows)
	}
	return nil
}

func listPods(c client, arguments []string) error {
	var output, name, namespace string
	var quiet bool
	if _, err := parse("pods", arguments, func(flags *flag.FlagSet) {
		text(flags, &output, "output", "o")
		text(flags, &name, "name")
		text(flags, &namespace, "namespace")
		truth(flags, &quiet, "quiet", "q")
	}); err != nil {
		return err
	}
	ctx, cancel := c.context()
	defer cancel()
	response, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("listing pod sandboxes: %w", err)
	}
	kept := response.Items[:0]
	for _, pod := range response.Items {
		if strings.Contains(pod.Metadata.GetName(), name) && strings.Contains(pod.Metadata.GetNamespace(), namespace) {
			kept = append(kept, pod)
		}
	}
	response.Items = kept
	if output == "json" {
		return printMessage(response)
	}
	rows := [][]string{{"POD ID", "STATE", "NAME", "NAMESPACE", "ATTEMPT"}}
	for _, pod := range response.Items {
		if quiet {
			fmt.Println(pod.Id)
			continue
		}
		state := strings.TrimPrefix(pod.State.String(), "SANDBOX_")
		rows = append(rows, []string{short(pod.Id), state[:1] + strings.ToLower(state[1:]), pod.Metadata.GetName(),
			pod.Metadata.GetNamespace(), fmt.Sprint(pod.Metadata.GetAttempt())})
	}
	if !quiet {
		table(rows)
	}
	return nil
}
