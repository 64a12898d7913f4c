//! The place of this process among the ranks of a joint run, as its launcher states it.

use anyhow::Result;

use crate::error::{Hint, usage_hinted};

/// Ports from which one is taken for a Slurm job that names none: below those that Linux gives to
/// connections.
const PORTS: std::ops::Range<u64> = 20_000..32_000;

/// The place of this process among the ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Its number, from 0.
    pub rank: usize,
    /// The number of all.
    pub size: usize,
    /// Its number on its host.
    pub local_rank: usize,
    /// Name or address of the host where the ranks meet.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Whether the launcher serves the store there. Otherwise rank 0 does.
    pub has_store: bool,
    /// The launcher's attempt: it starts all ranks again if one failed.
    pub attempt: String,
}

impl World {
    /// From the variables of torchrun, which may be set by hand (RANK, WORLD_SIZE, MASTER_ADDR,
    /// MASTER_PORT), else from those of a step of Slurm. None for a single process.
    ///
    /// # Errors
    /// Returns a usage error if a variable is missing or makes no sense.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<World>> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let number = |name: &str| given(name).map(|value| whole(name, &value)).transpose();
        let by_torchrun = given("RANK").is_some() && given("WORLD_SIZE").is_some();
        let [rank, size, local] = match by_torchrun {
            true => ["RANK", "WORLD_SIZE", "LOCAL_RANK"],
            false => ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"],
        };
        let (Some(of_rank), Some(of_size)) = (number(rank)?, number(size)?) else {
            return Ok(None);
        };
        if of_size < 2 && of_rank == 0 {
            return Ok(None);
        }
        if of_rank >= of_size {
            return Err(refused(format!(
                "{rank}={of_rank} is no rank of {size}={of_size}"
            )));
        }
        let job = number("SLURM_JOB_ID")?.unwrap_or(0);
        let step = number("SLURM_STEP_ID")?.unwrap_or(0);
        let nodes = given("SLURM_STEP_NODELIST").filter(|_| !by_torchrun);
        let host = given("MASTER_ADDR").or_else(|| nodes.map(|nodes| first_host(&nodes)));
        let Some(host) = host else {
            return Err(refused(format!(
                "{rank} and {size} are set, but MASTER_ADDR is not"
            )));
        };
        let port = match number("MASTER_PORT")? {
            Some(port) => port,
            None if by_torchrun => return Err(refused("MASTER_PORT is not set".to_string())),
            // Steps of one job, and jobs on one node, have different ports.
            None => PORTS.start + (job * 16 + step) % (PORTS.end - PORTS.start),
        };
        let port = u16::try_from(port).ok().filter(|&port| port > 0);
        Ok(Some(World {
            rank: of_rank as usize,
            size: of_size as usize,
            local_rank: number(local)?.unwrap_or(0) as usize,
            host,
            port: port.ok_or_else(|| refused("MASTER_PORT is no port".to_string()))?,
            has_store: given("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            attempt: given("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".to_string()),
        }))
    }
}

fn refused(what: String) -> anyhow::Error {
    let text = format!("the environment asks for a joint run: {what}");
    usage_hinted(text, Hint::JointOff)
}

fn whole(name: &str, value: &str) -> Result<u64> {
    let number = value.parse();
    number.map_err(|_| refused(format!("{name}={value} is no whole number")))
}

/// The first host of a list of Slurm: `n3` of `n[3-5,7],m`.
fn first_host(list: &str) -> String {
    let end = list.find(['[', ',']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    match rest.strip_prefix('[') {
        Some(numbers) => {
            let end = numbers.find([',', '-', ']']).unwrap_or(numbers.len());
            let after = numbers.split_once(']').map_or("", |(_, after)| after);
            let suffix = after.split(',').next().unwrap_or_default();
            format!("{name}{}{suffix}", &numbers[..end])
        }
        None => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(variables: &[(&str, &str)]) -> Result<Option<World>> {
        World::of(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_string())
        })
    }

    const BY_HAND: [(&str, &str); 4] = [
        ("RANK", "1"),
        ("WORLD_SIZE", "4"),
        ("MASTER_ADDR", "node1"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn launchers_state_the_place_of_a_process() {
        let by_hand = world(&BY_HAND).unwrap().unwrap();
        assert_eq!((by_hand.rank, by_hand.size, by_hand.local_rank), (1, 4, 0));
        assert_eq!((by_hand.host.as_str(), by_hand.port), ("node1", 29500));
        assert!(!by_hand.has_store);

        let torchrun = [
            ("LOCAL_RANK", "1"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
            ("SLURM_PROCID", "0"), // torchrun under srun
            ("SLURM_STEP_NUM_TASKS", "2"),
        ];
        let torchrun = world(&[&BY_HAND[..], &torchrun].concat()).unwrap().unwrap();
        assert_eq!(
            (torchrun.rank, torchrun.size, torchrun.local_rank),
            (1, 4, 1)
        );
        assert_eq!((torchrun.has_store, torchrun.attempt.as_str()), (true, "2"));

        let slurm = [
            ("SLURM_PROCID", "3"),
            ("SLURM_STEP_NUM_TASKS", "8"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_NODELIST", "gpu[03-06],login"),
            ("SLURM_JOB_ID", "4711"),
            ("SLURM_STEP_ID", "2"),
        ];
        let slurm = world(&slurm).unwrap().unwrap();
        assert_eq!((slurm.rank, slurm.size, slurm.local_rank), (3, 8, 1));
        // 20000 + (4711 * 16 + 2) % 12000
        assert_eq!((slurm.host.as_str(), slurm.port), ("gpu03", 23378));
    }

    #[test]
    fn a_single_process_has_no_ranks() {
        assert_eq!(world(&[]).unwrap(), None);
        assert_eq!(world(&[("RANK", "3")]).unwrap(), None);
        let single = [("RANK", "0"), ("WORLD_SIZE", "1")];
        assert_eq!(world(&single).unwrap(), None);
        // The script of a batch job with four tasks, which srun has not started.
        let batch = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")];
        assert_eq!(world(&batch).unwrap(), None);
    }

    #[test]
    fn half_a_place_is_refused() {
        for (at, value, said) in [
            (0, "4", "RANK=4 is no rank of WORLD_SIZE=4"),
            (0, "x", "RANK=x is no whole number"),
            (2, "", "MASTER_ADDR is not"),
            (3, "", "MASTER_PORT is not set"),
            (3, "0", "MASTER_PORT is no port"),
            (3, "65536", "MASTER_PORT is no port"),
        ] {
            let mut variables = BY_HAND;
            variables[at].1 = value;
            let error = world(&variables).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn the_first_host_of_a_list_is_found() {
        for (list, first) in [
            ("node", "node"),
            ("a,b", "a"),
            ("n[3-5,7],m", "n3"),
            ("n[07,9]", "n07"),
            ("r1n[2-3]-ib", "r1n2-ib"),
        ] {
            assert_eq!(first_host(list), first);
        }
    }
}
