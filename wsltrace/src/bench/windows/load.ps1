# The load of `wsltrace bench --from-windows`. It connects to the targets of the plan and changes nothing.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
# Without a console this fails, and does not matter: what is printed is ASCII.
try { [Console]::OutputEncoding = New-Object Text.UTF8Encoding $false } catch { }
$plan = '@PLAN@'
try {
Add-Type -IgnoreWarnings -TypeDefinition @'
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
public class WsltraceLoad {
  IPAddress address; int port, limit; bool http, keep; byte[] request; long end;
  long connections, lasted;
  SortedDictionary<long, long> times = new SortedDictionary<long, long>();
  SortedDictionary<string, long> failed = new SortedDictionary<string, long>();
  public static string Run(string address, int port, string mode, int clients, int milliseconds, int limit) {
    var load = new WsltraceLoad { address = IPAddress.Parse(address), port = port, limit = limit };
    load.http = mode != "connect";
    load.keep = mode == "http_keep_alive";
    string host = address.Contains(":") ? "[" + address + "]" : address;
    load.request = Encoding.ASCII.GetBytes("GET / HTTP/1.1\r\nHost: " + host + ":" + port + "\r\nUser-Agent: wsltrace\r\nAccept: */*\r\n"
      + (load.keep ? "" : "Connection: close\r\n") + "\r\n");
    long start = Stopwatch.GetTimestamp();
    load.end = start + milliseconds * Stopwatch.Frequency / 1000;
    var all = new Task[clients];
    for (int i = 0; i < clients; i++) all[i] = Task.Run(() => load.Client());
    Task.WaitAll(all);
    load.lasted = Nanoseconds(start, Stopwatch.GetTimestamp());
    return load.Told();
  }
  // QueryPerformanceCounter, where Windows has it; both ends of a time are of this clock.
  static long Nanoseconds(long from, long to) { return (long)((to - from) * (1e9 / Stopwatch.Frequency)); }
  async Task Client() {
    TcpClient client = null;
    var buffer = new byte[16384];
    long now = Stopwatch.GetTimestamp();
    while (now < end) {
      long began = now;
      string failure = null;
      bool again = false;
      try {
        if (client == null) {
          client = new TcpClient(address.AddressFamily);
          client.NoDelay = true;
          // Closed by a reset: the port is free again at once, and no side is closed before the other.
          client.LingerState = new LingerOption(true, 0);
          if (!await InTime(client.ConnectAsync(address, port))) failure = "timed_out";
          else Interlocked.Increment(ref connections);
          if (keep) began = Stopwatch.GetTimestamp();
        }
        if (failure == null && http) {
          var exchange = Exchange(client.GetStream(), buffer);
          if (!await InTime(exchange)) failure = "timed_out";
          else if (exchange.Result == "again") again = true;
          else if (exchange.Result != "done") failure = exchange.Result;
        }
      } catch (Exception error) { failure = Kind(error); }
      now = Stopwatch.GetTimestamp();
      lock (times) {
        if (failure != null) Count(failed, failure); else Count(times, Rounded(Nanoseconds(began, now)));
      }
      if (failure != null || !again || !keep) { if (client != null) client.Close(); client = null; }
    }
    if (client != null) client.Close();
  }
  async Task<bool> InTime(Task work) {
    using (var cancel = new CancellationTokenSource()) {
      var first = await Task.WhenAny(work, Task.Delay(limit, cancel.Token));
      cancel.Cancel();
      if (first != work) { work.ContinueWith(t => t.Exception, TaskContinuationOptions.OnlyOnFaulted); return false; }
      await work;
      return true;
    }
  }
  async Task<string> Exchange(NetworkStream stream, byte[] buffer) {
    await stream.WriteAsync(request, 0, request.Length);
    int used = 0, head = -1;
    while (head < 0) {
      if (used == buffer.Length) return "short";
      int got = await stream.ReadAsync(buffer, used, buffer.Length - used);
      if (got == 0) return used == 0 ? "closed" : "short";
      used += got;
      head = Encoding.ASCII.GetString(buffer, 0, used).IndexOf("\r\n\r\n");
    }
    string text = Encoding.ASCII.GetString(buffer, 0, head);
    if (!text.StartsWith("HTTP/1.")) return "short";
    long left = -1;
    bool keeps = text.StartsWith("HTTP/1.1");
    foreach (string line in text.Split('\n')) {
      string field = line.Trim().ToLowerInvariant();
      if (field.StartsWith("content-length:")) left = long.Parse(field.Substring(15)) - (used - head - 4);
      if (field.StartsWith("connection:")) keeps = field.Substring(11).Trim() != "close";
    }
    bool whole = left >= 0;
    while (left != 0) {
      int got = await stream.ReadAsync(buffer, 0, buffer.Length);
      if (got == 0) return whole ? "short" : "done";
      if (whole) left = Math.Max(0, left - got);
    }
    return keeps ? "again" : "done";
  }
  static string Kind(Exception error) {
    while (error.InnerException != null) error = error.InnerException;
    var socket = error as SocketException;
    if (socket == null) return "other";
    switch (socket.SocketErrorCode) {
      case SocketError.ConnectionRefused: return "refused";
      case SocketError.TimedOut: return "timed_out";
      case SocketError.ConnectionReset: case SocketError.ConnectionAborted: return "reset";
      case SocketError.HostUnreachable: case SocketError.NetworkUnreachable: return "unreachable";
      case SocketError.AddressAlreadyInUse: case SocketError.AddressNotAvailable: case SocketError.NoBufferSpaceAvailable: return "no_port";
      default: return "other";
    }
  }
  // Three significant digits are enough, and keep the answer short.
  static long Rounded(long value) {
    int shift = 0;
    while ((value >> shift) >= 2048) shift++;
    return Math.Max(1, value >> shift << shift);
  }
  static void Count<T>(IDictionary<T, long> counts, T key) { long old; counts.TryGetValue(key, out old); counts[key] = old + 1; }
  string Told() {
    var text = new StringBuilder();
    text.Append("{\"lasted_ns\":" + lasted + ",\"connections\":" + connections + ",\"failed\":{");
    string between = "";
    foreach (var one in failed) { text.Append(between + "\"" + one.Key + "\":" + one.Value); between = ","; }
    text.Append("},\"times\":[");
    between = "";
    foreach (var one in times) { text.Append(between + "[" + one.Key + "," + one.Value + "]"); between = ","; }
    return text.Append("]}").ToString();
  }
}
'@
  $read = ConvertFrom-Json $plan
  $steps = foreach ($step in $read.steps) {
    $path = $read.paths[$step.path]
    [WsltraceLoad]::Run($path.address, $path.port, $path.mode, $read.clients, $step.milliseconds, $read.limit_ms)
  }
  '{"plan":' + $plan + ',"frequency":' + [Diagnostics.Stopwatch]::Frequency + ',"steps":[' + (@($steps) -join ',') + ']}'
} catch {
  $why = ConvertTo-Json -Compress ([string]$_.Exception.Message)
  '{"error":' + [regex]::Replace($why, '[^\x20-\x7e]', { '\u{0:x4}' -f [int][char]$args[0].Value }) + '}'
}
