# Each host program below scripts/ again, by the command that kbuild saved for it, with another compiler: CROSS in HOSTCC's place.
#
# kbuild itself can't: it runs what it makes (fixdep after every compile). .cmd files are makefiles, so make reads them as kbuild does;
# the command is called savedcmd_TARGET since Linux 6.3, cmd_TARGET before.
files := $(shell find scripts -name '.*.cmd')
include $(files)
targets := $(foreach file,$(files),$(dir $(file))$(patsubst .%.cmd,%,$(notdir $(file))))
saved = $(or $(savedcmd_$(1)),$(cmd_$(1)))
# With clang CC is HOSTCC; objects of the kernel's own architecture are none of ours.
of_host = $(and $(filter $(HOSTCC),$(firstword $(saved))),$(if $(filter -D__KERNEL__,$(saved)),,yes))
host := $(foreach target,$(targets),$(if $(call of_host,$(target)),$(target)))
programs := $(filter-out %.o %.so,$(host))

.PHONY: tools $(host)
tools: $(programs)
# Each from its own objects: one that can't be made keeps no other program away.
$(foreach program,$(programs),$(eval $(program): $(filter $(host),$(filter %.o,$(call saved,$(program))))))
# What can't be made is gone, or stays as it was, a program of another machine, and is left out of the package for that.
$(host):
	$(CROSS) $(wordlist 2,$(words $(call saved,$@)),$(call saved,$@))
