use prism::hooks::*;
fn main() -> anyhow::Result<()> {
    let a: Vec<String> = std::env::args().collect();
    let size: i64 = a[2].parse()?;
    let t = std::time::Instant::now();
    let net = NetworkGraph::load(std::path::Path::new(&a[1]), tch::Device::Cpu)?;
    eprintln!("load {:?}", t.elapsed());
    for rule in [Rule::Auto, Rule::Torchprism] {
        let t = std::time::Instant::now();
        let m = match HookedModel::new(&net, (size, size), rule, None) { Ok(m) => m, Err(e) => { println!("{rule:?} {e:#}"); continue } };
        eprintln!("hook {:?}", t.elapsed());
        println!("{rule:?} final {} guides {:?}", m.excitation_name(), m.guide_names());
        if a.len() > 3 && rule == Rule::Auto { for l in m.layers() { println!("{:40} {:20} {:?} {}", l.name, l.operator, l.shape, l.role.word()); } }
        let x = tch::Tensor::randn([2, 3, size, size], tch::kind::FLOAT_CPU);
        let e = m.forward(&x)?;
        println!("{:?} {:?} {:?}", e.logits, e.excitation, e.guides);
    }
    Ok(())
}
