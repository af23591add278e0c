package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// hardenCommand is the parent of the verbs that change the host.
func (a *app) hardenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "harden COMMAND",
		Short: "Change the host, in two phases, with the undo armed first",
		Long: "harden makes the host what an intent file says. apply changes the running kernel\n" +
			"only, and takes everything back by itself unless you confirm from a new connection;\n" +
			"confirm writes the files. A reboot before confirm boots the old state.",
		Example: "  sudo sixfence harden plan -o plan.json\n  sudo sixfence harden apply plan.json\n  sudo sixfence harden confirm\n  sudo sixfence harden status",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return &usageError{msg: fmt.Sprintf("unknown command %q", "harden "+args[0]), hint: "`sixfence harden --help` lists the commands"}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.hardenPlanCommands()...)
	cmd.AddCommand(a.hardenApplyCommands()...)
	return cmd
}
