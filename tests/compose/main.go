// Checks docker-compose.yml with the parser of docker compose itself, for which no engine is needed.
//
//	go run . ../../docker-compose.yml ../../.env.example
//
// Beyond what the parser refuses (misspelt keys, undefined services and volumes), the rules of this house: images
// pinned, ports on 127.0.0.1, a health check, a memory limit and bounded logs for whatever runs on, no privileges; and
// .env.example holds the very variables that the file asks for. Prints every violation, then ends with exit code 1.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
)

func main() {
	if len(os.Args) != 3 {
		fail("usage: compose COMPOSE_FILE ENV_FILE")
	}
	wrong, services, err := check(os.Args[1], os.Args[2])
	if err != nil {
		fail(err.Error())
	}
	for _, line := range wrong {
		fmt.Println(line)
	}
	if len(wrong) > 0 {
		os.Exit(1)
	}
	fmt.Printf("compose: %d services, all rules kept\n", services)
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(2)
}

func check(file, example string) ([]string, int, error) {
	ctx := context.Background()
	// Nothing of the caller's environment: the example alone must do.
	options, err := cli.NewProjectOptions([]string{file}, cli.WithEnvFiles(example), cli.WithDotEnv,
		cli.WithProfiles([]string{"*"}), cli.WithWorkingDirectory(filepath.Dir(file)))
	if err != nil {
		return nil, 0, err
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		return nil, 0, err
	}
	var wrong []string
	for _, name := range project.ServiceNames() {
		for _, problem := range problems(project.Services[name]) {
			wrong = append(wrong, fmt.Sprintf("service %q %s", name, problem))
		}
	}
	variables, err := variables(ctx, file, example)
	return append(wrong, variables...), len(project.Services), err
}

func problems(service types.ServiceConfig) []string {
	var wrong []string
	demand := func(kept bool, problem string) {
		if !kept {
			wrong = append(wrong, problem)
		}
	}
	if service.Restart != "no" {
		health := service.HealthCheck
		demand(health != nil && !health.Disable && len(health.Test) > 0, "runs on without a health check")
		demand(service.Restart == "unless-stopped", "does not restart")
		demand(service.StopGracePeriod != nil, "has no stop_grace_period")
	}
	name, tag := service.Image, ""
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") {
		tag = name[colon+1:]
	}
	demand(tag != "" && tag != "latest", fmt.Sprintf("has the image %q, which is not pinned", name))
	for _, port := range service.Ports {
		demand(port.HostIP == "127.0.0.1", fmt.Sprintf("publishes port %s beyond this machine", port.Published))
	}
	for dependency, condition := range service.DependsOn {
		demand(condition.Condition != types.ServiceConditionStarted,
			fmt.Sprintf("starts before %q is ready", dependency))
	}
	limits := service.Deploy != nil && service.Deploy.Resources.Limits != nil
	demand(limits && service.Deploy.Resources.Limits.MemoryBytes > 0, "has no memory limit")
	demand(service.Logging != nil && service.Logging.Options["max-size"] != "", "writes logs without bound")
	demand(slices.Contains(service.CapDrop, "ALL"), "keeps capabilities")
	demand(slices.Contains(service.SecurityOpt, "no-new-privileges:true"), "may gain privileges")
	demand(!service.Privileged, "is privileged")
	demand(service.ContainerName == "", "has a container_name, so it cannot be scaled")
	return wrong
}

// variables compares what the file asks for with what the example gives.
func variables(ctx context.Context, file, example string) ([]string, error) {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithInterpolation(false))
	if err != nil {
		return nil, err
	}
	model, err := options.LoadModel(ctx)
	if err != nil {
		return nil, err
	}
	asked := template.ExtractVariables(model, template.DefaultPattern)
	given := map[string]bool{}
	text, err := os.Open(example)
	if err != nil {
		return nil, err
	}
	defer text.Close()
	for lines := bufio.NewScanner(text); lines.Scan(); {
		if name, _, found := strings.Cut(lines.Text(), "="); found && !strings.HasPrefix(name, "#") {
			given[name] = true
		}
	}
	var wrong []string
	for name := range asked {
		if !given[name] {
			wrong = append(wrong, fmt.Sprintf(".env.example lacks %s", name))
		}
	}
	for name := range given {
		if _, found := asked[name]; !found {
			wrong = append(wrong, fmt.Sprintf(".env.example gives %s, which nothing asks for", name))
		}
	}
	slices.Sort(wrong)
	return wrong, nil
}
