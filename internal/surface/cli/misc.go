package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/surface/config"
)

func (a *app) schemaCommand() *cobra.Command {
	var names []string
	for _, d := range config.Documents() {
		names = append(names, string(d))
	}
	cmd := &cobra.Command{
		Use:       "schema DOCUMENT",
		Short:     "Print the JSON Schema of a document",
		Long:      "schema prints the JSON Schema of a document that sixfence writes or reads:\n" + strings.Join(names[:len(names)/2], ", ") + ",\n" + strings.Join(names[len(names)/2:], ", ") + ".",
		Example:   "  sixfence schema report > report.schema.json",
		ValidArgs: names,
		Args:      oneWord(names...),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := config.Schema(config.Document(args[0]))
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(b)
			return outputError(err)
		},
	}
	return cmd
}

// oneWord wants exactly one argument of a closed set.
func oneWord(words ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return &usageError{msg: cmd.CommandPath() + " takes one argument", hint: "one of: " + strings.Join(words, ", ")}
		}
		return oneOf(cmd.Name(), args[0], words...)
	}
}

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a completion script for a shell",
		Long:  "completion prints a script that completes sixfence's commands, flags and controls.",
		Example: "  source <(sixfence completion bash)\n" +
			"  sixfence completion zsh > \"${fpath[1]}/_sixfence\"\n" +
			"  sixfence completion fish | source",
		ValidArgs: shells,
		Args:      oneWord(shells...),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			var err error
			switch args[0] {
			case "bash":
				err = root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				err = root.GenZshCompletion(a.stdout)
			case "fish":
				err = root.GenFishCompletion(a.stdout, true)
			case "powershell":
				err = root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return outputError(err)
		},
	}
}

func (a *app) versionCommand() *cobra.Command {
	var format string
	var features bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := oneOf("--format", format, "text", "json"); err != nil {
				return err
			}
			if features {
				return a.features(format)
			}
			b := a.build
			if format == "json" {
				e := json.NewEncoder(a.stdout)
				e.SetIndent("", "  ")
				return outputError(e.Encode(b))
			}
			line := b.Tool()
			if b.Commit != "" {
				line += fmt.Sprintf(" (%.12s", b.Commit)
				if b.Modified {
					line += ", modified"
				}
				line += ")"
			}
			_, err := fmt.Fprintf(a.stdout, "%s %s %s\n", line, b.GoVersion, b.Platform)
			return outputError(err)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "output `FORMAT`: text or json")
	cmd.Flags().BoolVar(&features, "features", false, "print what the running kernel lets an audit see instead")
	completeWords(cmd, "format", "text", "json")
	return cmd
}
