# Chooses a slot and boots it. This script is in U-Boot's own device tree, together with the public key, so it is as trustworthy
# as U-Boot itself. The recipe replaces the names between at signs. All numbers are hexadecimal.
#
# The boot state has two copies, each with a checksum. The later intact copy counts, and the other one is written next, so a
# power cut during a write loses nothing. src/gateway/update/boot-state.ts says what each field means and which values it may have.
# A copy with another value is no copy.
#
# U-Boot parses a command again after it has replaced the variables in it, so a quote in a variable can begin another command.
# Therefore no text of the disk becomes the value of a variable. All values of the boot state and the version of an image are read
# from memory as numbers (`setexpr.l`, `itest.l`).
#
# `number` is the slot: 1 is A, 2 is B. The good slot is started @most-starts@ times without being found healthy; then the spare
# slot is good. A start that cannot be counted is not a trial.
#
# When the spare slot was started as often, or there is none, or no slot has a signed image, the recovery system is started. It has
# a partition of its own, which nothing writes after the board was flashed. Both slots have all their starts again before that, so
# a recovery that does not succeed leads back to them.
#
# The floor is that of the boot state or that of the board's counter, whichever is higher. `asked` is what the button for a factory
# reset adds to the kernel's arguments.
#
# lockdown=integrity: not even root changes the kernel that runs. It takes signed modules only, and no other kernel.
# cryptomgr.notests: the kernel does not test its own ciphers at each start. A root whose hash tree is right proves SHA-256.
@prepare@
setenv check '@check@'
setenv s1 0; setenv s2 0
if @read@ @state@ @state-1@ 1; then if run check; then setexpr.l s1 *@serial@; cp.l @state@ @kept@ 80; fi; fi
if @read@ @state@ @state-2@ 1; then if run check; then setexpr.l s2 *@serial@; fi; fi
setenv next @state-1@
if itest ${s2} -le ${s1}; then
  if itest ${s1} -gt 0; then
    cp.l @kept@ @state@ 80
    setenv next @state-2@
  else
    mw.l @state@ 0 80; mw.l @magic@ @magic-value@; mw.l @good@ 1
  fi
fi
setenv save 'setexpr.l n *@serial@ + 1; mw.l @serial@ ${n}; crc32 @body@ @body-length@ @state@; @write@ @state@ ${next} 1'
setenv trying 0; setenv changed 0; setenv recover 0
if itest.l *@try@ -gt 0; then
  setenv changed 1
  if itest.l *@left@ -gt 0; then
    setexpr.l n *@left@ - 1; mw.l @left@ ${n}
    setexpr.l number *@try@; setenv trying 1
  else
    setexpr.l n *@try@; mw.l @failed@ ${n}; mw.l @try@ 0
  fi
fi
if itest ${trying} -eq 0; then
  if itest.l *@starts@ -ge @most-starts@; then
    setexpr.l number *@spare@
    if itest.l *@failed@ -eq ${number}; then setenv recover 1; fi
    if itest ${number} -eq 0; then setenv recover 1; fi
    if itest ${recover} -eq 1; then mw.l @failed@ 0; else
      setexpr.l n *@good@
      mw.l @failed@ ${n}; mw.l @spare@ ${n}; mw.l @good@ ${number}
    fi
    mw.l @starts@ 0
  fi
  if itest ${recover} -eq 0; then setexpr.l n *@starts@ + 1; mw.l @starts@ ${n}; fi
  setenv changed 1
  setexpr.l number *@good@
fi
if itest ${changed} -eq 1; then
  if run save; then setenv changed 0; else
    setexpr.l number *@good@; setenv trying 0; setenv recover 0
  fi
fi
setexpr.l left *@left@; setexpr.l floor *@floor@; setexpr.l starts *@starts@
if @read-counter@; then if itest.l *@counter@ -le @most-floor@; then if itest.l *@counter@ -gt ${floor}; then setexpr.l floor *@counter@; fi; fi; fi
@select@
if @button@; then sleep 5; if @button@; then setenv asked 'postern.reset=1 '; fi; fi
setenv boot_slot 'if itest ${number} -eq 1; then setenv slot A; setenv from @boot-a@; else setenv slot B; setenv from @boot-b@; fi; if @read@ @fit@ ${from} @boot-blocks@; then if fdt addr @fit@; then if fdt get addr place /configurations/@configuration@ postern,version; then setexpr.l v *${place}; echo "postern: slot ${slot}, version 0x${v}, floor 0x${floor}, trying ${trying}, left ${left}, starts ${starts}"; if itest ${v} -ge ${floor}; then setenv bootargs "console=@console@ quiet cma=0 panic=3 cryptomgr.notests lockdown=integrity @kernel-arguments@ postern.slot=${slot} postern.trying=${trying} rauc.slot=${slot} ${asked}"; bootm @fit@#@configuration@ @fit@#@configuration@ @fdt@; fi; fi; fi; fi'
setenv boot_recovery 'echo "postern: recovery"; if @read@ @fit@ @recovery@ @recovery-blocks@; then if fdt addr @fit@; then if fdt get addr place /configurations/@recovery-configuration@ postern,version; then setenv bootargs "console=@console@ quiet cma=0 panic=3 cryptomgr.notests lockdown=integrity @kernel-arguments@ postern.recovery=1 "; bootm @fit@#@recovery-configuration@ @fit@#@recovery-configuration@ @recovery-fdt@; fi; fi; fi'
if itest ${recover} -eq 1; then run boot_recovery; fi
run boot_slot
echo "postern: slot ${slot} does not boot"
if itest ${trying} -eq 1; then
  mw.l @failed@ ${number}; mw.l @try@ 0
  run save
else
  setexpr.l number 3 - ${number}
  run boot_slot
  run boot_recovery
  sleep 5
fi
reset
