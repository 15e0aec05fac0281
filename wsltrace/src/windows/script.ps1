$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
# Without a console this fails, and does not matter: what is printed is ASCII.
try { [Console]::OutputEncoding = New-Object Text.UTF8Encoding $false } catch { }
$port = @PORT@
$wsl = '@VM_CREATOR@'
$said = [ordered]@{}
function Ask($name, $question) {
  try { $said[$name] = @{ ok = @(& $question) } } catch { $said[$name] = @{ error = [string]$_.Exception.Message } }
}
function Netsh {
  $text = & "$env:SystemRoot\System32\netsh.exe" @args
  if ($LASTEXITCODE -ne 0) { throw "netsh ended with $LASTEXITCODE" }
  ($text | Out-String)
}
Ask 'version' {
  $v = Get-ItemProperty 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
  @{ build = [string]$v.CurrentBuildNumber; update = [string]$v.UBR; release = [string]$v.DisplayVersion }
}
Ask 'portproxy' {
  foreach ($families in 'v4tov4', 'v4tov6', 'v6tov4', 'v6tov6') {
    $path = "HKLM:\SYSTEM\CurrentControlSet\Services\PortProxy\$families\tcp"
    if (Test-Path $path) {
      $key = Get-Item $path
      foreach ($value in $key.GetValueNames()) {
        @{ families = $families; listen = [string]$value; connect = [string]$key.GetValue($value) }
      }
    }
  }
}
Ask 'listeners' {
  foreach ($socket in @(Get-NetTCPConnection -State Listen | Where-Object { $_.LocalPort -eq $port })) {
    $id = [int]$socket.OwningProcess
    $process = Get-Process -Id $id -ErrorAction SilentlyContinue
    $services = @(Get-CimInstance Win32_Service -Filter "ProcessId=$id" -ErrorAction SilentlyContinue | ForEach-Object { [string]$_.Name })
    @{ address = [string]$socket.LocalAddress; port = [int]$socket.LocalPort; pid = $id; process = [string]$process.ProcessName; services = $services }
  }
}
Ask 'excluded_v4' { Netsh interface ipv4 show excludedportrange protocol=tcp }
Ask 'excluded_v6' { Netsh interface ipv6 show excludedportrange protocol=tcp }
Ask 'dynamic_ports' { Netsh interface ipv4 show dynamicport tcp }
Ask 'iphlpsvc' {
  $service = Get-Service iphlpsvc
  @{ status = [int]$service.Status; start = [int]$service.StartType }
}
Ask 'firewall_profiles' {
  foreach ($p in @(Get-NetFirewallProfile -PolicyStore ActiveStore)) {
    @{ name = [string]$p.Name; enabled = [int]$p.Enabled; inbound = [int]$p.DefaultInboundAction }
  }
}
Ask 'hyperv_firewall' {
  if (Get-Command Get-NetFirewallHyperVVMSetting -ErrorAction SilentlyContinue) {
    foreach ($s in @(Get-NetFirewallHyperVVMSetting -PolicyStore ActiveStore -Name $wsl)) {
      @{ enabled = [int]$s.Enabled; inbound = [int]$s.DefaultInboundAction; merge = [int]$s.AllowHostPolicyMerge }
    }
  }
}
Ask 'hyperv_rules' {
  if (Get-Command Get-NetFirewallHyperVRule -ErrorAction SilentlyContinue) {
    foreach ($r in @(Get-NetFirewallHyperVRule -VMCreatorId $wsl)) {
      if ([int]$r.Direction -eq 1 -and [int]$r.Enabled -eq 1) {
        @{ name = [string]$r.Name; action = [int]$r.Action; protocol = [string]$r.Protocol; ports = @($r.LocalPorts | ForEach-Object { [string]$_ }) }
      }
    }
  }
}
Ask 'vethernet' {
  foreach ($a in @(Get-NetIPAddress -AddressFamily IPv4 | Where-Object { $_.InterfaceAlias -like 'vEthernet (WSL*' })) {
    @{ adapter = [string]$a.InterfaceAlias; address = [string]$a.IPAddress; prefix = [int]$a.PrefixLength }
  }
}
Ask 'wslconfig' {
  $config = Join-Path $env:USERPROFILE '.wslconfig'
  if (Test-Path -LiteralPath $config -PathType Leaf) {
    if ((Get-Item -LiteralPath $config -Force).Length -gt 65536) { throw 'the file is too long' }
    [Convert]::ToBase64String([IO.File]::ReadAllBytes($config))
  }
}
Ask 'wslconfig_txt' { Test-Path -LiteralPath (Join-Path $env:USERPROFILE '.wslconfig.txt') -PathType Leaf }
$json = ConvertTo-Json $said -Depth 6 -Compress
[regex]::Replace($json, '[^\x20-\x7e]', { '\u{0:x4}' -f [int][char]$args[0].Value })
